%%% @private
%%% Converts responses of the control API to the terms that this client documents.
%%%
%%% Atoms come from the lists in this file and never from a response. Unknown keys are dropped: later versions of the
%%% daemon may add some.
-module(pmd_api).

-export([matches/1, names/1, nodes/1, services/1, service/1, hello/1, event/2, gap/1, failure/2, kinds/0]).

-type result(T) :: {ok, T} | {error, {bad_answer, term()}}.

%% @doc Every kind of event one can subscribe to.
-spec kinds() -> [atom(), ...].
kinds() -> [name_up, name_down, service_up, service_down, node_up, node_suspect, node_down, node_left].

%% @doc The result of a lookup.
-spec matches(binary()) -> result([pmd:match()]).
matches(Body) -> list(Body, <<"matches">>, fun match/1).

%% @doc The nodes of this host or of the cluster.
-spec names(binary()) -> result([pmd:name()]).
names(Body) -> list(Body, <<"names">>, fun name/1).

%% @doc The daemons of the cluster.
-spec nodes(binary()) -> result([pmd:member()]).
nodes(Body) -> list(Body, <<"nodes">>, fun member/1).

%% @doc The services of this host or of the cluster.
-spec services(binary()) -> result([pmd:service()]).
services(Body) -> list(Body, <<"services">>, fun service_fields/1).

%% @doc One service.
-spec service(binary()) -> result(pmd:service()).
service(Body) -> decoded(Body, fun service_fields/1).

%% @doc The first message of an event stream.
-spec hello(binary()) -> result(#{boot_id := binary(), last := non_neg_integer()}).
hello(Data) ->
    decoded(Data, fun(Map) -> fields(Map, [{boot_id, text}, {last, number}], []) end).

%% @doc An event of this kind.
-spec event(binary(), binary()) -> result(pmd:event()).
event(Kind, Data) ->
    decoded(Data, fun(Map) ->
        Required = [{seq, number}, {at, text}, {name, text}, {host, text}],
        Fields = fields(Map, Required, [{port, port}, {node_id, text}, {reason, text}]),
        Fields#{event => one_of(kinds(), Kind)}
    end).

%% @doc The notice that events are missing.
-spec gap(binary()) -> result(pmd:event()).
gap(Data) ->
    decoded(Data, fun(Map) ->
        Fields = fields(Map, [{reason, {one_of, [too_old, restarted]}}], [{missed, number}]),
        Fields#{event => gap}
    end).

%% @doc The reason in a response whose status is not a success.
-spec failure(100..599, binary()) -> pmd:reason().
failure(Status, Body) ->
    Codes = [invalid_request, not_found, method_not_allowed, conflict, too_large, timeout, full, ending, no_cluster,
        unresolvable, unreachable, refused, oneself],
    case pmd_json:decode(Body) of
        {ok, #{<<"error">> := #{<<"code">> := Code, <<"message">> := Message} = Error}} when is_binary(Message) ->
            case one_of(Codes, Code) of
                not_found -> not_found;
                Known when is_atom(Known) -> {Known, explained(Message, Error)};
                _ -> {other, explained(Message, Error)}
            end;
        _ ->
            {bad_answer, {status, Status}}
    end.

explained(Message, #{<<"hint">> := Hint}) when is_binary(Hint), Hint =/= <<>> -> <<Message/binary, "; ", Hint/binary>>;
explained(Message, _) -> Message.

match(Map) ->
    Fields = fields(
        Map,
        [{kind, {one_of, [name, service]}}, {name, text}, {host, text}, {port, port}],
        [{node_id, text}, {entry, entry}, {metadata, metadata}]
    ),
    %% The daemon omits empty metadata.
    maps:merge(#{metadata => #{}}, Fields).

name(Map) ->
    fields(Map, [{name, text}, {port, port}, {creation, number}, {node_type, number}, {registered_at, text}], [
        {host, text}, {node_id, text}, {highest_version, number}, {lowest_version, number}
    ]).

member(Map) ->
    fields(Map, [{id, text}, {host, text}, {oneself, boolean}, {state, {one_of, [alive, suspect]}}], [
        {addresses, entries}, {version, text}, {metadata, metadata}, {names, number}, {services, number},
        {started_at, text}
    ]).

service_fields(Map) ->
    fields(Map, [{name, text}, {port, port}, {metadata, metadata}, {registered_at, text}], [
        {host, text}, {node_id, text}, {held, boolean}, {expires_at, text}
    ]).

%% ---- decoding

list(Body, Key, Read) ->
    decoded(Body, fun
        (#{} = Map) ->
            case Map of
                #{Key := List} when is_list(List) ->
                    %% A list about one host gives its name once, outside the list.
                    Shared = maps:with([<<"host">>], Map),
                    [Read(maps:merge(Shared, object(Element))) || Element <- List];
                _ ->
                    throw({missing, Key})
            end;
        (_) ->
            throw({missing, Key})
    end).

object(#{} = Map) -> Map;
object(_) -> throw(not_an_object).

decoded(Body, Read) ->
    case pmd_json:decode(Body) of
        {ok, Value} ->
            try
                {ok, Read(Value)}
            catch
                throw:Reason -> {error, {bad_answer, Reason}}
            end;
        {error, Reason} ->
            {error, {bad_answer, {json, Reason}}}
    end.

fields(#{} = Map, Required, Optional) ->
    Wanted = [{Field, true} || Field <- Required] ++ [{Field, false} || Field <- Optional],
    maps:from_list([Pair || {Field, Needed} <- Wanted, Pair <- field(Map, Field, Needed)]);
fields(_, _, _) ->
    throw(not_an_object).

field(Map, {Field, Type}, Needed) ->
    case maps:find(atom_to_binary(Field, utf8), Map) of
        {ok, Value} -> [{Field, typed(Type, Field, Value)}];
        error when Needed -> throw({missing, Field});
        error -> []
    end.

typed(text, _, Value) when is_binary(Value) -> Value;
typed(number, _, Value) when is_integer(Value), Value >= 0 -> Value;
typed(port, _, Value) when is_integer(Value), Value >= 0, Value < 65536 -> Value;
typed(boolean, _, Value) when is_boolean(Value) -> Value;
typed(metadata, _, Value) when is_map(Value) -> Value;
typed(entry, Field, Value) when is_binary(Value) -> entry(Field, Value);
typed(entries, Field, Values) when is_list(Values) -> [typed(entry, Field, Value) || Value <- Values];
typed({one_of, Atoms}, _, Value) -> one_of(Atoms, Value);
typed(_, Field, _) -> throw({wrong_type, Field}).

%% "IP:PORT", "[IPV6]:PORT".
entry(Field, Text) ->
    case string:split(binary_to_list(Text), ":", trailing) of
        [Host, Port] ->
            case {inet:parse_strict_address(string:trim(Host, both, "[]")), string:to_integer(Port)} of
                {{ok, Address}, {Number, []}} when is_integer(Number), Number > 0, Number < 65536 -> {Address, Number};
                _ -> throw({wrong_type, Field})
            end;
        _ ->
            throw({wrong_type, Field})
    end.

%% A word of a later version stays a binary.
one_of(Atoms, Word) ->
    case [Atom || Atom <- Atoms, atom_to_binary(Atom, utf8) =:= Word] of
        [Atom] -> Atom;
        [] when is_binary(Word) -> Word;
        [] -> throw({wrong_type, word})
    end.
