%%% @doc An epmd module that finds nodes through pmd: `erl -epmd_module pmd_epmd'. OTP 24 or later; this file alone is
%%% enough.
%%%
%%% It behaves exactly like OTP's own `erl_epmd', except for one question: how to reach a node on another host.
%%%
%%% <ol>
%%% <li>It asks this host's daemon over its control socket. If that daemon carries the traffic, its response has an
%%%     `entry', an address and port on this host that lead to the node: no DNS, no open port on the other host.</li>
%%% <li>With `PMD_EPMD_TUNNELS=true' in the environment, a node that may not use the control socket asks this host's
%%%     port mapper for `NAME@HOST' and takes the response for a port on 127.0.0.1. Set it only where the daemon carries
%%%     the traffic: otherwise the response is a port on the other host.</li>
%%% <li>Otherwise, as without pmd: resolve the host name and ask the port mapper there.</li>
%%% <li>If the name cannot be resolved: use the address at which other daemons reach that host's daemon, and the port
%%%     that it has announced.</li>
%%% </ol>
%%%
%%% So without pmd, nothing changes and nothing is logged. The node registers as always, with the port mapper of its
%%% host.
%%%
%%% `net_kernel' itself waits for these responses, so the daemon has one second, and any failure here means no more than
%%% "not found".
-module(pmd_epmd).

-export([start/0, start_link/0, stop/0]).
-export([register_node/2, register_node/3]).
-export([address_please/3, port_please/2, port_please/3, listen_port_please/2]).
-export([names/0, names/1, open/0, open/1, open/2]).

%% The version of the distribution protocol: every node since OTP 23 speaks it, and since OTP 25 no other.
-define(VERSION, 6).
%% Milliseconds for everything the daemon is asked about one node.
-define(PATIENCE, 1000).
%% The longest response that is read: enough for thousands of nodes of one name, or of daemons.
-define(MAX_ANSWER, 1048576).
%% How deeply values may be nested in a response; real ones are four deep.
-define(MAX_DEPTH, 16).
%% Heap words for parsing a response.
-define(MAX_HEAP, 4194304).
%% EPMD protocol.
-define(PORT_PLEASE2, 122).
-define(PORT2, 119).

%% ---- as erl_epmd

%% @private
-spec start() -> {ok, pid()} | ignore | {error, term()}.
start() -> erl_epmd:start().

%% @doc Starts erl_epmd's process, which holds the registration.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() -> erl_epmd:start_link().

%% @private
-spec stop() -> term().
stop() -> erl_epmd:stop().

%% @doc Registers this node with the port mapper of this host.
-spec register_node(string(), inet:port_number()) -> {ok, integer()} | term().
register_node(Name, Port) -> erl_epmd:register_node(Name, Port).

%% @doc Registers this node with the port mapper of this host, over IPv4 or IPv6.
-spec register_node(string(), inet:port_number(), inet | inet6 | inet_tcp | inet6_tcp) -> {ok, integer()} | term().
register_node(Name, Port, inet_tcp) -> erl_epmd:register_node(Name, Port, inet);
register_node(Name, Port, inet6_tcp) -> erl_epmd:register_node(Name, Port, inet6);
register_node(Name, Port, Family) -> erl_epmd:register_node(Name, Port, Family).

%% @doc The port of a node according to the port mapper of its host.
-spec port_please(atom() | string(), atom() | string() | inet:ip_address()) ->
    {port, inet:port_number(), non_neg_integer()} | noport | closed | {error, term()}.
port_please(Name, Host) -> erl_epmd:port_please(Name, Host).

%% @doc The port of a node according to the port mapper of its host.
-spec port_please(atom() | string(), atom() | string() | inet:ip_address(), timeout()) ->
    {port, inet:port_number(), non_neg_integer()} | noport | closed | {error, term()}.
port_please(Name, Host, Timeout) -> erl_epmd:port_please(Name, Host, Timeout).

%% @doc The port this node should listen on; 0 means any.
-spec listen_port_please(atom() | string(), atom() | string() | inet:ip_address()) -> {ok, inet:port_number()}.
listen_port_please(Name, Host) -> erl_epmd:listen_port_please(Name, Host).

%% @doc The nodes of this host.
-spec names() -> {ok, [{string(), inet:port_number()}]} | {error, term()}.
names() -> erl_epmd:names().

%% @doc The nodes of a host according to its port mapper.
-spec names(atom() | string() | inet:ip_address()) -> {ok, [{string(), inet:port_number()}]} | {error, term()}.
names(Host) -> erl_epmd:names(Host).

%% @private
-spec open() -> {ok, gen_tcp:socket()} | {error, term()}.
open() -> erl_epmd:open().

%% @private
-spec open(inet:ip_address()) -> {ok, gen_tcp:socket()} | {error, term()}.
open(Address) -> erl_epmd:open(Address).

%% @private
-spec open(inet:ip_address(), timeout()) -> {ok, gen_tcp:socket()} | {error, term()}.
open(Address, Timeout) -> erl_epmd:open(Address, Timeout).

%% ---- through pmd

%% @doc How to reach a node: at an entry of pmd on this host, or at the address of its own host, in which case
%% {@link port_please/2} returns the port, unless pmd knows it.
-spec address_please(atom() | string(), atom() | string() | inet:ip_address(), inet | inet6) ->
    {ok, inet:ip_address()} | {ok, inet:ip_address(), inet:port_number(), ?VERSION} | {error, term()}.
address_please(Name, Host, Family) ->
    case aside(fun(Deadline) -> ask(to_binary(Name), host_to_binary(Host), Family, Deadline) end) of
        {entry, Address, Port} -> {ok, Address, Port, ?VERSION};
        {direct, Id, Port} -> at_its_host(erl_epmd:address_please(Name, Host, Family), Id, Port, Family);
        none -> erl_epmd:address_please(Name, Host, Family)
    end.

at_its_host({error, _} = Unresolved, Id, Port, Family) ->
    case aside(fun(Deadline) -> ask_member(Id, Family, Deadline) end) of
        {ok, Address} -> {ok, Address, Port, ?VERSION};
        none -> Unresolved
    end;
at_its_host(Resolved, _, _, _) ->
    Resolved.

%% Runs in a separate process: whatever a response does to that process, net_kernel receives no message and no exit
%% signal, keeps no garbage, and continues when the time is up.
aside(Question) ->
    Deadline = erlang:monotonic_time(millisecond) + ?PATIENCE,
    Ask = fun() ->
        Answer =
            try
                Question(Deadline)
            catch
                _:_ -> none
            end,
        exit({?MODULE, Answer})
    end,
    Options = [monitor, {max_heap_size, #{size => ?MAX_HEAP, kill => true, error_logger => false}}],
    {Pid, Monitor} = spawn_opt(Ask, Options),
    receive
        {'DOWN', Monitor, process, Pid, {?MODULE, Answer}} -> Answer;
        {'DOWN', Monitor, process, Pid, _} -> none
    %% The process has its own deadline; this is the backstop.
    after ?PATIENCE + ?PATIENCE div 2 ->
        erlang:demonitor(Monitor, [flush]),
        exit(Pid, kill),
        none
    end.

ask(Name, Host, Family, Deadline) ->
    Full = <<Name/binary, $@, Host/binary>>,
    case control([<<"/v1/lookup?kind=name&name=">>, quoted(Full)], Deadline) of
        #{<<"matches">> := [#{<<"kind">> := <<"name">>} = Best | _]} ->
            place(Best, Family);
        none ->
            case environment("PMD_EPMD_TUNNELS") of
                {ok, Switch} when Switch =:= "true"; Switch =:= "1"; Switch =:= "yes"; Switch =:= "on" ->
                    ask_epmd(Full, Family, Deadline);
                _ ->
                    none
            end
    end.

%% A match without an entry means that the daemon does not carry the traffic.
place(#{<<"entry">> := Entry}, Family) ->
    {Address, Port} = address_and_port(Entry),
    {ok, Usable} = in_family(Family, Address),
    {entry, Usable, Port};
place(#{<<"node_id">> := Id, <<"port">> := Port}, _) ->
    {direct, Id, port_number(Port)};
place(_, _) ->
    none.

ask_member(Id, Family, Deadline) ->
    #{<<"nodes">> := Members} = control(<<"/v1/nodes">>, Deadline),
    [Texts] = [Addresses || #{<<"id">> := Id1, <<"addresses">> := Addresses} <- Members, Id1 =:= Id],
    Usable = [{ok, Address} || Text <- Texts, {Address, _} <- [address_and_port(Text)], is_of(Family, Address)],
    hd(Usable).

is_of(inet, Address) -> tuple_size(Address) =:= 4;
is_of(inet6, Address) -> tuple_size(Address) =:= 8.

in_family(inet, {_, _, _, _} = Address) -> {ok, Address};
in_family(inet6, {_, _, _, _, _, _, _, _} = Address) -> {ok, Address};
%% inet6_tcp sockets reach IPv4 addresses in this form.
in_family(inet6, {_, _, _, _} = Address) -> {ok, inet:ipv4_mapped_ipv6_address(Address)};
in_family(_, _) -> none.

to_binary(Name) when is_atom(Name) -> atom_to_binary(Name, utf8);
to_binary(Name) -> unicode:characters_to_binary(Name).

host_to_binary(Address) when is_tuple(Address) -> list_to_binary(inet:ntoa(Address));
host_to_binary(Host) -> to_binary(Host).

left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).

%% ---- the control socket

%% In the order in which the pmd command tries them.
socket_paths() ->
    File = "pmd-" ++ integer_to_list(epmd_port()) ++ ".sock",
    case {environment("PMD_SOCKET"), environment("PMD_HOME")} of
        {{ok, Socket}, _} -> [Socket];
        {none, {ok, Home}} -> [filename:join(Home, File)];
        {none, none} ->
            Own = [filename:join([Home, ".pmd", File]) || {ok, Home} <- [environment("HOME")]],
            Own ++ [filename:join("/run/pmd", File)]
    end.

%% An empty variable counts as unset.
environment(Name) ->
    case os:getenv(Name, "") of
        "" -> none;
        Value -> {ok, Value}
    end.

epmd_port() ->
    case {init:get_argument(epmd_port), environment("ERL_EPMD_PORT")} of
        {{ok, [[Port | _] | _]}, _} -> list_to_integer(Port);
        {_, {ok, Port}} -> list_to_integer(Port);
        _ -> 4369
    end.

%% The daemon's response, or none if there is no daemon or it has no result.
control(Path, Deadline) -> control(socket_paths(), Path, Deadline).

control([], _, _) ->
    none;
control([Socket | Sockets], Path, Deadline) ->
    case gen_tcp:connect({local, Socket}, 0, [local, binary, {active, false}], left(Deadline)) of
        {ok, Connection} ->
            %% HTTP/1.0: the response is not chunked, and ends with the connection.
            ok = gen_tcp:send(Connection, [<<"GET ">>, Path, <<" HTTP/1.0\r\nhost: pmd\r\n\r\n">>]),
            read_answer(receive_all(Connection, Deadline, []));
        {error, _} ->
            control(Sockets, Path, Deadline)
    end.

quoted(Binary) -> [io_lib:format("%~2.16.0B", [Byte]) || <<Byte>> <= Binary].

receive_all(Socket, Deadline, Before) ->
    case gen_tcp:recv(Socket, 0, left(Deadline)) of
        {ok, Data} ->
            iolist_size(Before) + byte_size(Data) =< ?MAX_ANSWER orelse exit(too_long),
            receive_all(Socket, Deadline, [Before, Data]);
        {error, closed} ->
            iolist_to_binary(Before)
    end.

read_answer(<<"HTTP/1.", _, " 200", _/binary>> = Answer) ->
    [_, Body] = binary:split(Answer, <<"\r\n\r\n">>),
    %% A truncated response is an object that does not end, which crashes here.
    {Object, _} = value(skip(Body), ?MAX_DEPTH),
    Object;
read_answer(_) ->
    none.

%% "IP:PORT" or "[IPV6]:PORT".
address_and_port(Text) ->
    [Host, Port] = string:split(Text, ":", trailing),
    {ok, Address} = inet:parse_strict_address(string:trim(binary_to_list(Host), both, "[]")),
    {Address, port_number(Port)}.

port_number(Text) ->
    Number = binary_to_integer(Text),
    true = Number > 0 andalso Number < 65536,
    Number.

%% As much of JSON as is needed here: objects become maps, arrays lists, and everything else stays text, strings without
%% their quotes. Malformed input crashes this process, which means "not found".
value(<<${, Rest/binary>>, Depth) when Depth > 0 -> object(skip(Rest), Depth - 1, #{});
value(<<$[, Rest/binary>>, Depth) when Depth > 0 -> array(skip(Rest), Depth - 1, []);
value(<<$", Rest/binary>>, _) -> text(Rest, Rest, 0);
value(Text, _) ->
    {match, [{0, Length}]} = re:run(Text, "^(true|false|null|[-+.0-9eE]{1,40})", [{capture, first}]),
    split_binary(Text, Length).

object(<<$}, Rest/binary>>, _, Members) ->
    {Members, Rest};
object(<<$", Text/binary>>, Depth, Members) ->
    {Key, AfterKey} = text(Text, Text, 0),
    <<$:, ValueText/binary>> = skip(AfterKey),
    {Value, After} = value(skip(ValueText), Depth),
    object(next(skip(After)), Depth, Members#{Key => Value}).

array(<<$], Rest/binary>>, _, Before) ->
    {lists:reverse(Before), Rest};
array(Text, Depth, Before) ->
    {Value, After} = value(Text, Depth),
    array(next(skip(After)), Depth, [Value | Before]).

next(<<$,, Rest/binary>>) -> skip(Rest);
next(Rest) -> Rest.

text(Start, <<$", Rest/binary>>, Length) -> {binary:part(Start, 0, Length), Rest};
text(Start, <<$\\, _, Rest/binary>>, Length) -> text(Start, Rest, Length + 2);
text(Start, <<_, Rest/binary>>, Length) -> text(Start, Rest, Length + 1).

skip(<<C, Rest/binary>>) when C =:= $\s; C =:= $\t; C =:= $\n; C =:= $\r -> skip(Rest);
skip(Text) -> Text.

%% ---- the port mapper

%% pmd's extension: NAME@HOST. Stock epmd knows only NAME, and finds nothing.
ask_epmd(Full, Family, Deadline) ->
    Loopback = {127, 0, 0, 1},
    case gen_tcp:connect(Loopback, epmd_port(), [inet, binary, {active, false}], left(Deadline)) of
        {ok, Socket} ->
            ok = gen_tcp:send(Socket, <<(byte_size(Full) + 1):16, ?PORT_PLEASE2, Full/binary>>),
            case receive_all(Socket, Deadline, []) of
                <<?PORT2, 0, Port:16, _/binary>> when Port > 0 ->
                    {ok, Usable} = in_family(Family, Loopback),
                    {entry, Usable, Port};
                _ -> none
            end;
        {error, _} ->
            none
    end.
