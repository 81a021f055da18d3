%%% @doc An epmd module that finds nodes on other hosts through pmd: `erl -epmd_module pmd_epmd'. OTP 24 or later; this
%%% file alone is enough, and `pmd run' and `pmd env' bring it along.
%%%
%%% It behaves exactly like OTP's own `erl_epmd', except for one question: how to reach a node on another host. It puts
%%% that question to this host's port mapper, as any local user may. If that is a pmd whose cluster has the host, its
%%% response has the address and port to dial: no DNS, no open port on the other host. Otherwise, the host name is
%%% resolved, and the port mapper there is asked, as without pmd.
%%%
%%% <ol>
%%% <li>pmd is asked for `NAME@HOST', with the host as it is written in the node name.</li>
%%% <li>If it knows no such host, the name is resolved. If the address is that of a member, the member is meant.</li>
%%% <li>If the name cannot be resolved, its first part is tried, because hosts may know themselves by other domains than
%%%     the cluster does. Within this node's own domain that comes first, before a resolver that may be slow.</li>
%%% </ol>
%%%
%%% So without pmd, nothing changes and nothing is logged. The node registers as always, with the port mapper of its
%%% host. If the command line has another `-epmd_module' too, everything is left to that one.
%%%
%%% `net_kernel' itself waits for these responses, so the daemon has one second, and any failure here means no more than
%%% "not found".
%%%
%%% One compiled file serves all releases. Newer ones no longer load what older compilers made of binary syntax, so there
%%% is none here; `scripts/build-epmd-module' fails if any instruction of that kind remains.
-module(pmd_epmd).

-export([start/0, start_link/0, stop/0]).
-export([register_node/2, register_node/3]).
-export([address_please/3, port_please/2, port_please/3, listen_port_please/2]).
-export([names/0, names/1, open/0, open/1, open/2]).

%% Milliseconds for one question to the daemon.
-define(PATIENCE, 1000).
%% The highest and the lowest version of the distribution protocol that nodes of this module may speak.
-define(HIGHEST, 6).
-define(LOWEST, 5).
%% EPMD protocol.
-define(PORT_PLEASE2, 122).
-define(PORT2, 119).
%% Results of pmd beside those of the EPMD protocol: the host is a member and has no such node; the host is this one.
-define(NO_SUCH_NODE, 2).
-define(THIS_HOST, 3).
%% The file that lists hosts of the cluster for the resolver.
-define(HOSTS_FILE, "PMD_HOSTS_FILE").

-type name() :: atom() | string().
-type host() :: atom() | string() | inet:ip_address().

%% ---- as erl_epmd

%% @private
-spec start() -> {ok, pid()} | ignore | {error, term()}.
start() -> stock(start, []).

%% @doc Starts erl_epmd's process, which holds the registration.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    resolve_members(os:getenv(?HOSTS_FILE, "")),
    _ = load_as_embedded(),
    stock(start_link, []).

%% @private
-spec stop() -> term().
stop() -> stock(stop, []).

%% @doc Registers this node with the port mapper of this host.
-spec register_node(string(), inet:port_number()) -> {ok, integer()} | term().
register_node(Name, Port) -> stock(register_node, [Name, Port]).

%% @doc Registers this node with the port mapper of this host, over IPv4 or IPv6.
-spec register_node(string(), inet:port_number(), inet | inet6 | inet_tcp | inet6_tcp) -> {ok, integer()} | term().
register_node(Name, Port, inet_tcp) -> stock(register_node, [Name, Port, inet]);
register_node(Name, Port, inet6_tcp) -> stock(register_node, [Name, Port, inet6]);
register_node(Name, Port, Family) -> stock(register_node, [Name, Port, Family]).

%% @doc The port of a node according to the port mapper of its host.
-spec port_please(name(), host()) ->
    {port, inet:port_number(), non_neg_integer()} | noport | closed | {error, term()}.
port_please(Name, Host) -> stock(port_please, [Name, Host]).

%% @doc The port of a node according to the port mapper of its host.
-spec port_please(name(), host(), timeout()) ->
    {port, inet:port_number(), non_neg_integer()} | noport | closed | {error, term()}.
port_please(Name, Host, Timeout) -> stock(port_please, [Name, Host, Timeout]).

%% @doc The port this node should listen on; 0 means any.
-spec listen_port_please(name(), host()) -> {ok, inet:port_number()}.
listen_port_please(Name, Host) -> stock(listen_port_please, [Name, Host]).

%% @doc The nodes of this host.
-spec names() -> {ok, [{string(), inet:port_number()}]} | {error, term()}.
names() -> stock(names, []).

%% @doc The nodes of a host according to its port mapper.
-spec names(host()) -> {ok, [{string(), inet:port_number()}]} | {error, term()}.
names(Host) -> stock(names, [Host]).

%% @private
-spec open() -> {ok, gen_tcp:socket()} | {error, term()}.
open() -> stock(open, []).

%% @private
-spec open(inet:ip_address()) -> {ok, gen_tcp:socket()} | {error, term()}.
open(Address) -> stock(open, [Address]).

%% @private
-spec open(inet:ip_address(), timeout()) -> {ok, gen_tcp:socket()} | {error, term()}.
open(Address, Timeout) -> stock(open, [Address, Timeout]).

%% What the node would do without pmd: in the module that the user has chosen, or in OTP's own, which also has what the
%% user's lacks.
stock(Function, Arguments) ->
    Users = users_module(),
    case Users =/= none andalso exports(Users, Function, length(Arguments)) of
        true -> apply(Users, Function, Arguments);
        false -> apply(erl_epmd, Function, Arguments)
    end.

%% This module comes first on the command line, where `pmd run' puts it, so that it is in use.
users_module() ->
    {ok, Given} =
        case init:get_argument(epmd_module) of
            error -> {ok, []};
            Found -> Found
        end,
    case [Name || [Name | _] <- Given, Name =/= ?MODULE_STRING] of
        [] -> none;
        [Name | _] -> list_to_atom(Name)
    end.

exports(Module, Function, Arity) ->
    {module, Module} =:= code:ensure_loaded(Module) andalso erlang:function_exported(Module, Function, Arity).

%% ---- the node's surroundings

%% Programs in this node resolve the names of members that the system does not know. A resolver configuration of the
%% user's that reads a hosts file of its own stays as it is.
resolve_members("") ->
    ok;
resolve_members(File) ->
    Lookup = inet_db:res_option(lookup),
    case lists:member(file, Lookup) of
        true ->
            ok;
        false ->
            inet_db:set_hosts_file(File),
            inet_db:set_lookup([file | Lookup])
    end.

%% In embedded mode, a node cannot load this module. `pmd run' therefore starts nodes in interactive mode, and whatever
%% embedded mode would have loaded before the start is loaded after it.
load_as_embedded() ->
    case is_meant_to_be_embedded() of
        true -> spawn(fun() -> load_all(init:get_status()) end);
        false -> ok
    end.

%% By a second flag, or by a variable of a release that would be in embedded mode: relx's, or Elixir's for the commands
%% that start the release itself.
is_meant_to_be_embedded() ->
    case init:get_argument(mode) of
        {ok, [_ | Others]} -> lists:member(["embedded"], Others);
        error -> false
    end
        orelse os:getenv("CODE_LOADING_MODE") =/= false
        orelse lists:member(os:getenv("RELEASE_COMMAND"), ["start", "start_iex", "daemon", "daemon_iex"]).

load_all({started, _}) ->
    Applications = [Name || {Name, _, _} <- application:loaded_applications()],
    Modules = [Modules || Name <- Applications, {ok, Modules} <- [application:get_key(Name, modules)]],
    code:ensure_modules_loaded(lists:append(Modules));
load_all({starting, _}) ->
    timer:sleep(100),
    load_all(init:get_status());
load_all(_) ->
    ok.

%% ---- through pmd

%% @doc How to reach a node: the address and port that pmd gives, or the address of its host, whose port mapper
%% {@link port_please/2} asks for the port.
-spec address_please(name(), host(), inet | inet6) ->
    {ok, inet:ip_address()} | {ok, inet:ip_address(), inet:port_number(), ?LOWEST..?HIGHEST} | {error, term()}.
address_please(Name, Host, Family) ->
    Stock = fun() -> stock(address_please, [Name, Host, Family]) end,
    case users_module() =:= none andalso through_pmd(Name, Host, Family) of
        false -> Stock();
        this_host -> Stock();
        unknown -> elsewhere(Name, Host, Family, Stock);
        Answer -> Answer
    end.

elsewhere(Name, Host, Family, Stock) when not is_tuple(Host) ->
    case is_of_own_domain(Host) andalso by_first_part(Name, Host, Family) of
        {ok, _, _, _} = Found -> Found;
        _ -> resolved(Stock(), Name, Host, Family)
    end;
elsewhere(_, _, _, Stock) ->
    Stock().

resolved({ok, Address} = Stock, Name, _, Family) ->
    case through_pmd(Name, Address, Family) of
        {ok, _, _, _} = Found -> Found;
        {error, _} = Absent -> Absent;
        _ -> Stock
    end;
resolved({error, _} = Unresolved, Name, Host, Family) ->
    case by_first_part(Name, Host, Family) of
        {ok, _, _, _} = Found -> Found;
        _ -> by_ipv4(Unresolved, Name, Host, Family)
    end;
resolved(Stock, _, _, _) ->
    Stock.

%% Many names have only an IPv4 address. A node that uses IPv6 reaches such a member all the same, because it dials an
%% address of pmd's.
by_ipv4(Unresolved, Name, Host, inet6) ->
    case inet:getaddr(Host, inet) of
        {ok, Address} ->
            case through_pmd(Name, Address, inet6) of
                {ok, _, _, _} = Found -> Found;
                _ -> Unresolved
            end;
        {error, _} ->
            Unresolved
    end;
by_ipv4(Unresolved, _, _, inet) ->
    Unresolved.

by_first_part(Name, Host, Family) ->
    case string:split(to_string(Host), ".") of
        [First, _] when First =/= "" -> through_pmd(Name, First, Family);
        _ -> unknown
    end.

is_of_own_domain(Host) ->
    case {string:split(to_string(Host), "."), string:split(atom_to_list(node()), ".")} of
        {[_, Domain], [_, Domain]} -> true;
        _ -> false
    end.

%% Runs in a separate process: whatever a response does to that process, net_kernel receives no message and no exit
%% signal, and continues when the time is up.
through_pmd(Name, Host, Family) ->
    Ask = fun() ->
        Answer =
            try
                ask(to_bytes(Name), host_to_bytes(Host), Family)
            catch
                _:_ -> unknown
            end,
        exit({?MODULE, Answer})
    end,
    {Pid, Monitor} = spawn_monitor(Ask),
    receive
        {'DOWN', Monitor, process, Pid, {?MODULE, Answer}} -> Answer;
        {'DOWN', Monitor, process, Pid, _} -> unknown
    after ?PATIENCE ->
        erlang:demonitor(Monitor, [flush]),
        exit(Pid, kill),
        unknown
    end.

%% pmd's extension of the EPMD protocol: PORT_PLEASE2 for NAME@HOST@FAMILY. Its response has the address to dial in the
%% extra field. Stock epmd knows no such name. The name in the response is the node's alone: a node that has registered
%% the whole question as its name is not believed.
ask(Name, Host, Family) ->
    Question = lists:append([Name, "@", Host, "@", atom_to_list(Family)]),
    {ok, Socket} = connect(),
    ok = gen_tcp:send(Socket, [uint16(length(Question) + 1), ?PORT_PLEASE2, Question]),
    case receive_all(Socket, []) of
        [?PORT2, 0, P1, P0, _Type, _Protocol, H1, H0, L1, L0, N1, N0 | NameAndExtra] ->
            {Name, [E1, E0 | Extra]} = lists:split(uint16(N1, N0), NameAndExtra),
            {"pmd", Address} = lists:split(3, Extra),
            true = length(Extra) =:= uint16(E1, E0),
            found(address(Address, Family), uint16(P1, P0), uint16(H1, H0), uint16(L1, L0));
        [?PORT2, ?NO_SUCH_NODE] ->
            {error, noport};
        [?PORT2, ?THIS_HOST] ->
            this_host;
        _ ->
            unknown
    end.

found(Address, Port, Highest, Lowest) when Port > 0, Highest >= ?LOWEST, Lowest =< ?HIGHEST ->
    {ok, Address, Port, min(Highest, ?HIGHEST)};
found(_, _, _, _) ->
    unknown.

connect() ->
    Options = [list, {active, false}],
    case gen_tcp:connect({127, 0, 0, 1}, epmd_port(), [inet | Options], ?PATIENCE) of
        {ok, Socket} -> {ok, Socket};
        {error, _} -> gen_tcp:connect({0, 0, 0, 0, 0, 0, 0, 1}, epmd_port(), [inet6 | Options], ?PATIENCE)
    end.

%% A response is shorter than this; a longer one is none.
receive_all(Socket, Before) when length(Before) < 4096 ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Data} -> receive_all(Socket, Before ++ Data);
        {error, closed} -> Before
    end.

address([A, B, C, D], inet) -> {A, B, C, D};
address([_ | _] = Bytes, inet6) when length(Bytes) =:= 16 -> list_to_tuple(words(Bytes)).

words([High, Low | Others]) -> [uint16(High, Low) | words(Others)];
words([]) -> [].

uint16(High, Low) -> High * 256 + Low.

uint16(Number) -> [Number div 256, Number rem 256].

epmd_port() ->
    case {init:get_argument(epmd_port), os:getenv("ERL_EPMD_PORT", "")} of
        {{ok, [[Port | _] | _]}, _} -> list_to_integer(Port);
        {_, ""} -> 4369;
        {_, Port} -> list_to_integer(Port)
    end.

to_string(Text) when is_atom(Text) -> atom_to_list(Text);
to_string(Text) -> Text.

%% The bytes of a name in UTF-8.
to_bytes(Name) -> binary_to_list(unicode:characters_to_binary(to_string(Name))).

host_to_bytes(Address) when is_tuple(Address) -> inet:ntoa(Address);
host_to_bytes(Host) -> to_bytes(Host).
