%%% @private
%%% As much of HTTP/1.1 (RFC 9112) as a client of the control API needs, without a socket.
%%%
%%% {@link feed/2} parses a response in whatever pieces it arrives. Everything is bounded: the head, chunk lines and, by
%%% {@link whole/2}, the body of a response that is collected.
%%%
%%% ```
%%%            blank line           all of it, or the last chunk
%%%   head ------------------> body ----------------------------> done
%%% '''
-module(pmd_http).

-export([request/3, path/2, new/0, feed/2, finish/1, whole/2]).
-export_type([parser/0, piece/0, reason/0, answer/0]).

-type piece() :: {status, 100..599} | {body, binary()} | done.
%% The parts of a response, in this order.

-type reason() :: bad_head | head_too_long | bad_chunk | body_too_long | closed.
%% Why bytes are not a valid response.

-type answer() :: {100..599, binary()}.
%% A complete response: status and body.

-record(parser, {
    state = head :: head | {length, non_neg_integer()} | chunk | {chunk, non_neg_integer()} | chunk_end | trailer
                  | to_end | done,
    %% Input that is incomplete so far; at most `?MAX_HEAD' bytes.
    rest = <<>> :: binary()
}).

-opaque parser() :: #parser{}.
%% A response that is being read.

%% The daemon's response heads are about 120 bytes long.
-define(MAX_HEAD, 8192).
%% Room for "ffffffffffffffff" and a chunk extension, which pmd does not send.
-define(MAX_CHUNK_LINE, 128).

%% @doc The bytes of a request. `connection: close' makes the end of the response the end of the connection.
-spec request(get | post | delete, binary(), none | iodata()) -> iolist().
request(Method, Path, Body) ->
    [method(Method), $\s, Path, <<" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n">>, body(Body)].

method(get) -> <<"GET">>;
method(post) -> <<"POST">>;
method(delete) -> <<"DELETE">>.

body(none) ->
    <<"\r\n">>;
body(Body) ->
    Length = integer_to_binary(iolist_size(Body)),
    [<<"content-type: application/json\r\ncontent-length: ">>, Length, <<"\r\n\r\n">>, Body].

%% @doc A path with these segments and parameters, escaped so that nothing in them can be taken for syntax.
-spec path([binary()], [{binary(), binary()}]) -> binary().
path(Segments, Parameters) ->
    Path = [[$/, quoted(Segment)] || Segment <- Segments],
    Query = [[quoted(Key), $=, quoted(Value)] || {Key, Value} <- Parameters],
    iolist_to_binary([Path, [[$?, lists:join($&, Query)] || Query =/= []]]).

quoted(Binary) -> [quoted_byte(C) || <<C>> <= Binary].

quoted_byte(C) when C >= $a, C =< $z; C >= $A, C =< $Z; C >= $0, C =< $9; C =:= $-; C =:= $.; C =:= $_; C =:= $~ -> C;
quoted_byte(C) -> io_lib:format("%~2.16.0B", [C]).

%% @doc A parser at the start of a response.
-spec new() -> parser().
new() -> #parser{}.

%% @doc Takes the next bytes of a response; returns the parts that are complete.
-spec feed(binary(), parser()) -> {ok, [piece()], parser()} | {error, reason()}.
feed(Data, #parser{rest = Rest} = Parser) ->
    steps(Parser#parser{rest = <<Rest/binary, Data/binary>>}, []).

%% @doc The connection was closed: the end of a response without a length, or else of an incomplete one.
-spec finish(parser()) -> ok | {error, reason()}.
finish(#parser{state = State}) when State =:= to_end; State =:= done -> ok;
finish(#parser{}) -> {error, closed}.

%% @doc Collects the parts of a response until it is complete, unless it is too long.
-spec whole([piece()], {undefined | 100..599, [binary()], Room :: integer()}) ->
    {ok, answer()} | {more, {undefined | 100..599, [binary()], Room :: integer()}} | {error, reason()}.
whole([], Sum) -> {more, Sum};
whole([{status, Status} | Pieces], {_, Body, Room}) -> whole(Pieces, {Status, Body, Room});
whole([{body, Data} | _], {_, _, Room}) when byte_size(Data) > Room -> {error, body_too_long};
whole([{body, Data} | Pieces], {Status, Body, Room}) -> whole(Pieces, {Status, [Data | Body], Room - byte_size(Data)});
whole([done | _], {Status, Body, _}) -> {ok, {Status, iolist_to_binary(lists:reverse(Body))}}.

steps(Parser, Pieces) ->
    case step(Parser) of
        {piece, Piece, Next} -> steps(Next, [Piece | Pieces]);
        {next, Next} -> steps(Next, Pieces);
        wait -> {ok, lists:reverse(Pieces), Parser};
        {error, _} = Error -> Error
    end.

step(#parser{state = head, rest = Rest} = Parser) ->
    case binary:split(Rest, <<"\r\n\r\n">>) of
        [Head, _] when byte_size(Head) > ?MAX_HEAD -> {error, head_too_long};
        [Head, After] -> head(Head, Parser#parser{rest = After});
        [_] when byte_size(Rest) > ?MAX_HEAD -> {error, head_too_long};
        [_] -> wait
    end;
step(#parser{state = {length, 0}} = Parser) ->
    {piece, done, Parser#parser{state = done}};
step(#parser{state = done}) ->
    wait;
step(#parser{state = chunk} = Parser) ->
    line(Parser, fun(Line, Next) ->
        case chunk_size(Line) of
            {ok, 0} -> {next, Next#parser{state = trailer}};
            {ok, Size} -> {next, Next#parser{state = {chunk, Size}}};
            error -> {error, bad_chunk}
        end
    end);
step(#parser{state = {chunk, 0}} = Parser) ->
    {next, Parser#parser{state = chunk_end}};
step(#parser{state = chunk_end} = Parser) ->
    line(Parser, fun
        (<<>>, Next) -> {next, Next#parser{state = chunk}};
        (_, _) -> {error, bad_chunk}
    end);
step(#parser{state = trailer} = Parser) ->
    line(Parser, fun
        (<<>>, Next) -> {piece, done, Next#parser{state = done}};
        (_, Next) -> {next, Next}
    end);
step(#parser{rest = <<>>}) ->
    wait;
step(#parser{state = to_end, rest = Rest} = Parser) ->
    {piece, {body, Rest}, Parser#parser{rest = <<>>}};
step(#parser{state = {Kind, Left}, rest = Rest} = Parser) ->
    Size = min(Left, byte_size(Rest)),
    <<Data:Size/binary, After/binary>> = Rest,
    {piece, {body, Data}, Parser#parser{state = {Kind, Left - Size}, rest = After}}.

line(#parser{rest = Rest} = Parser, Then) ->
    case binary:split(Rest, <<"\r\n">>) of
        [Line, After] when byte_size(Line) =< ?MAX_CHUNK_LINE -> Then(Line, Parser#parser{rest = After});
        [_] when byte_size(Rest) =< ?MAX_CHUNK_LINE -> wait;
        _ -> {error, bad_chunk}
    end.

chunk_size(Line) ->
    [Digits | _] = binary:split(Line, [<<";">>, <<" ">>]),
    %% Sixteen digits already exceed any memory.
    case re:run(Digits, "^[0-9a-fA-F]{1,16}$", [{capture, none}, dollar_endonly]) of
        match -> {ok, binary_to_integer(Digits, 16)};
        nomatch -> error
    end.

head(Head, Parser) ->
    [StatusLine | Lines] = binary:split(Head, <<"\r\n">>, [global]),
    case {status(StatusLine), body_kind([header(Line) || Line <- Lines])} of
        {{ok, Status}, {ok, State}} when Status >= 200 -> {piece, {status, Status}, Parser#parser{state = State}};
        %% An interim response (1xx); the final one follows.
        {{ok, _}, {ok, _}} -> {next, Parser};
        _ -> {error, bad_head}
    end.

status(<<"HTTP/1.", _, $\s, A, B, C, Rest/binary>>) when
    A >= $1, A =< $5, B >= $0, B =< $9, C >= $0, C =< $9, (Rest =:= <<>> orelse binary_part(Rest, 0, 1) =:= <<" ">>)
->
    {ok, (A - $0) * 100 + (B - $0) * 10 + (C - $0)};
status(_) ->
    error.

%% As lists of bytes, because string functions fail on a binary that is not UTF-8.
header(Line) ->
    case binary:split(Line, <<":">>) of
        [Name, Value] -> {plain(Name), plain(Value)};
        [_] -> bad
    end.

plain(Binary) -> string:lowercase(string:trim(binary_to_list(Binary))).

body_kind(Headers) ->
    Chunked = [Value || {"transfer-encoding", Value} <- Headers],
    Lengths = [Value || {"content-length", Value} <- Headers],
    case {lists:member(bad, Headers), Chunked, Lengths} of
        {false, ["chunked"], []} -> {ok, chunk};
        {false, [], []} -> {ok, to_end};
        {false, [], [Length]} -> length_of(Length);
        _ -> error
    end.

length_of(Digits) ->
    case re:run(Digits, "^[0-9]{1,16}$", [{capture, none}, dollar_endonly]) of
        match -> {ok, {length, list_to_integer(Digits)}};
        nomatch -> error
    end.
