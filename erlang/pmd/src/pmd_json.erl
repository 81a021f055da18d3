%%% @private
%%% JSON (RFC 8259) for the control API: small, strict and bounded.
%%%
%%% OTP has a JSON module since 27; this client also supports older releases. Objects become maps with binary keys,
%%% strings become UTF-8 binaries, and `true', `false' and `null' become atoms; no other atoms are created.
-module(pmd_json).

-export([decode/1, encode/1]).
-export_type([value/0, reason/0, encodable/0]).

-type value() :: null | boolean() | number() | binary() | [value()] | #{binary() => value()}.
%% What {@link decode/1} returns.

-type reason() :: truncated | trailing | too_deep | {unexpected, byte()} | bad_number | bad_string | duplicate_key.
%% Why a text cannot be decoded.

-type encodable() ::
    null | boolean() | number() | atom() | binary() | [encodable()] | #{atom() | binary() => encodable()}.
%% What {@link encode/1} takes.

%% The API's own values are four deep; anything much deeper does not come from it.
-define(MAX_DEPTH, 32).
%% Digits of a number: more than any 64-bit number or double needs. The cost of longer ones grows with their square.
-define(MAX_NUMBER, 40).

%% @doc Decodes one value, with nothing but white space around it.
-spec decode(binary()) -> {ok, value()} | {error, reason()}.
decode(Text) when is_binary(Text) ->
    try
        {Value, Rest} = value(skip(Text), ?MAX_DEPTH),
        case skip(Rest) of
            <<>> -> {ok, Value};
            _ -> {error, trailing}
        end
    catch
        throw:{?MODULE, Reason} -> {error, Reason}
    end.

%% @doc Encodes a value in the shortest form. Fails with `badarg' if it has none, as for a binary that is not UTF-8.
-spec encode(encodable()) -> iodata().
encode(Map) when is_map(Map) ->
    Members = [[string(key(Key)), $:, encode(Value)] || {Key, Value} <- maps:to_list(Map)],
    [${, lists:join($,, Members), $}];
encode(List) when is_list(List) ->
    [$[, lists:join($,, [encode(Value) || Value <- List]), $]];
encode(Binary) when is_binary(Binary) -> string(Binary);
encode(Integer) when is_integer(Integer) -> integer_to_binary(Integer);
encode(Float) when is_float(Float) -> io_lib:format("~w", [Float]);
encode(Atom) when Atom =:= null; Atom =:= true; Atom =:= false -> atom_to_binary(Atom, utf8);
encode(Atom) when is_atom(Atom) -> string(atom_to_binary(Atom, utf8));
encode(_) -> error(badarg).

%% ---- decoding

value(<<${, Rest/binary>>, Depth) when Depth > 0 -> object(skip(Rest), Depth - 1);
value(<<$[, Rest/binary>>, Depth) when Depth > 0 -> array(skip(Rest), Depth - 1);
value(<<C, _/binary>>, _) when C =:= ${; C =:= $[ -> stop(too_deep);
value(<<$", Rest/binary>>, _) -> text(Rest);
value(<<"true", Rest/binary>>, _) -> {true, Rest};
value(<<"false", Rest/binary>>, _) -> {false, Rest};
value(<<"null", Rest/binary>>, _) -> {null, Rest};
value(<<C, _/binary>> = Text, _) when C =:= $-; C >= $0, C =< $9 -> number(Text);
value(<<C, _/binary>>, _) -> stop({unexpected, C});
value(<<>>, _) -> stop(truncated).

object(<<$}, Rest/binary>>, _) -> {#{}, Rest};
object(Text, Depth) -> members(Text, Depth, #{}).

members(<<$", Text/binary>>, Depth, Members) ->
    {Key, AfterKey} = text(Text),
    %% RFC 8259 leaves it to the reader which of two equal keys counts, so a text with both means different things to
    %% different readers.
    is_map_key(Key, Members) andalso stop(duplicate_key),
    {Value, AfterValue} = value(skip(expect($:, skip(AfterKey))), Depth),
    Added = Members#{Key => Value},
    case skip(AfterValue) of
        <<$,, Rest/binary>> -> members(skip(Rest), Depth, Added);
        Rest -> {Added, expect($}, Rest)}
    end;
members(Text, _, _) ->
    expect($", Text).

array(<<$], Rest/binary>>, _) -> {[], Rest};
array(Text, Depth) -> elements(Text, Depth, []).

elements(Text, Depth, Before) ->
    {Value, After} = value(Text, Depth),
    case skip(After) of
        <<$,, Rest/binary>> -> elements(skip(Rest), Depth, [Value | Before]);
        Rest -> {lists:reverse(Before, [Value]), expect($], Rest)}
    end.

%% A string up to its closing quote; the stretches between escapes are taken as they are.
text(Text) -> text(Text, Text, 0, []).

text(<<$", Rest/binary>>, Start, Length, Before) ->
    {joined(Start, Length, Before), Rest};
text(<<$\\, Rest/binary>>, Start, Length, Before) ->
    {Character, After} = escape(Rest),
    text(After, After, 0, [<<Character/utf8>>, binary:part(Start, 0, Length) | Before]);
text(<<C, _/binary>>, _, _, _) when C < 16#20 -> stop(bad_string);
text(<<C, Rest/binary>>, Start, Length, Before) when C < 16#80 -> text(Rest, Start, Length + 1, Before);
text(<<C/utf8, Rest/binary>>, Start, Length, Before) ->
    text(Rest, Start, Length + byte_size(<<C/utf8>>), Before);
text(<<>>, _, _, _) -> stop(truncated);
text(_, _, _, _) -> stop(bad_string).

%% Copied, so that keeping a name does not keep the whole response in memory.
joined(Start, Length, []) -> binary:copy(binary:part(Start, 0, Length));
joined(Start, Length, Before) -> iolist_to_binary(lists:reverse(Before, [binary:part(Start, 0, Length)])).

escape(<<$u, Rest/binary>>) -> unicode_escape(Rest);
escape(<<C, Rest/binary>>) -> {simple_escape(C), Rest};
escape(<<>>) -> stop(truncated).

simple_escape($") -> $";
simple_escape($\\) -> $\\;
simple_escape($/) -> $/;
simple_escape($b) -> $\b;
simple_escape($f) -> $\f;
simple_escape($n) -> $\n;
simple_escape($r) -> $\r;
simple_escape($t) -> $\t;
simple_escape(_) -> stop(bad_string).

unicode_escape(Text) ->
    case hex4(Text) of
        {High, <<"\\u", Rest/binary>>} when High >= 16#D800, High =< 16#DBFF ->
            case hex4(Rest) of
                {Low, After} when Low >= 16#DC00, Low =< 16#DFFF ->
                    {16#10000 + ((High - 16#D800) bsl 10) + (Low - 16#DC00), After};
                _ ->
                    stop(bad_string)
            end;
        {Half, _} when Half >= 16#D800, Half =< 16#DFFF -> stop(bad_string);
        Character -> Character
    end.

hex4(<<A, B, C, D, Rest/binary>>) ->
    {lists:foldl(fun(Digit, Sum) -> Sum * 16 + hex(Digit) end, 0, [A, B, C, D]), Rest};
hex4(_) ->
    stop(truncated).

hex(C) when C >= $0, C =< $9 -> C - $0;
hex(C) when C >= $a, C =< $f -> C - $a + 10;
hex(C) when C >= $A, C =< $F -> C - $A + 10;
hex(_) -> stop(bad_string).

number(Text) ->
    Length = number_length(Text, 0),
    <<Digits:Length/binary, Rest/binary>> = Text,
    Grammar = "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][-+]?[0-9]+)?$",
    case re:run(Digits, Grammar, [{capture, all_but_first, binary}, dollar_endonly]) of
        {match, [_]} -> {binary_to_integer(Digits), Rest};
        {match, [_, _]} -> {float_of(Digits), Rest};
        %% binary_to_float/1 requires a fraction before an exponent.
        {match, [_, <<>>, Exponent]} ->
            Mantissa = binary:part(Digits, 0, byte_size(Digits) - byte_size(Exponent)),
            {float_of(<<Mantissa/binary, ".0", Exponent/binary>>), Rest};
        {match, [_, _, _]} -> {float_of(Digits), Rest};
        nomatch -> stop(bad_number)
    end.

number_length(<<C, Rest/binary>>, Length) when C >= $0, C =< $9; C =:= $-; C =:= $+; C =:= $.; C =:= $e; C =:= $E ->
    Length < ?MAX_NUMBER orelse stop(bad_number),
    number_length(Rest, Length + 1);
number_length(_, Length) ->
    Length.

float_of(Digits) ->
    try
        binary_to_float(Digits)
    catch
        %% Too large for a double.
        error:badarg -> stop(bad_number)
    end.

skip(<<C, Rest/binary>>) when C =:= $\s; C =:= $\t; C =:= $\n; C =:= $\r -> skip(Rest);
skip(Text) -> Text.

expect(C, <<C, Rest/binary>>) -> Rest;
expect(_, <<C, _/binary>>) -> stop({unexpected, C});
expect(_, <<>>) -> stop(truncated).

-spec stop(reason()) -> no_return().
stop(Reason) -> throw({?MODULE, Reason}).

%% ---- encoding

key(Key) when is_atom(Key) -> atom_to_binary(Key, utf8);
key(Key) when is_binary(Key) -> Key;
key(_) -> error(badarg).

string(Binary) ->
    case unicode:characters_to_binary(Binary, utf8) of
        Binary -> [$", [escaped(C) || <<C>> <= Binary], $"];
        _ -> error(badarg)
    end.

escaped($") -> <<"\\\"">>;
escaped($\\) -> <<"\\\\">>;
escaped(C) when C < 16#20; C =:= 16#7F -> io_lib:format("\\u~4.16.0b", [C]);
escaped(C) -> C.
