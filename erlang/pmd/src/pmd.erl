%%% @doc Client for pmd, the port mapper that joins the hosts of a cluster into one registry.
%%%
%%% All functions talk to this host's daemon over its control socket, which they find as the `pmd' command does:
%%% `PMD_SOCKET'; otherwise `pmd-PORT.sock' in `PMD_HOME'; otherwise in `~/.pmd', and if nothing answers there, in
%%% `/run/pmd'. PORT is `ERL_EPMD_PORT', or 4369. Nothing has to be started: the application has no processes of its
%%% own.
%%%
%%% A user who may not use the control socket can look up and list: these functions read from the daemon's EPMD port then,
%%% unless its configuration says `web = "off"'.
%%%
%%% Text from the daemon is always a UTF-8 binary and never becomes an atom. Later versions may add keys to maps.
-module(pmd).

-compile({no_auto_import, [nodes/0, register/2, unregister/1]}).

-export([lookup/1, lookup/2]).
-export([register/2, register/3, unregister/1]).
-export([names/0, names/1, services/0, services/1, nodes/0]).
-export([subscribe/1, subscribe/2, unsubscribe/1]).
-export([format_error/1]).

-export_type([text/0, reason/0, code/0, match/0, name/0, service/0, member/0, address/0]).
-export_type([handle/0, subscription/0, event/0, kind/0]).

-type text() :: binary() | string() | atom().
%% A name: `<<"web">>', `"web"', `web', 'rabbit@host7'.

-type address() :: {inet:ip_address(), inet:port_number()}.
%% Where to connect to.

-type code() ::
    invalid_request | method_not_allowed | conflict | too_large | timeout | full | ending | no_cluster
    | unresolvable | unreachable | refused | oneself | other.
%% The daemon's error code. `conflict' means that the name is taken; after `full' and `ending', try again later;
%% `no_cluster' comes from a daemon that was started as `epmd'; `other' is a code of a later version.

-type reason() :: not_found | {code(), Explanation :: binary()} | {invalid, Argument :: atom()} | pmd_socket:reason().
%% Why a call failed; {@link format_error/1} turns it into a sentence.
%% <ul>
%% <li>`not_found': no node or service has that name, or there is no such host</li>
%% <li>`{Code, Explanation}': the daemon's error code, and a sentence for people</li>
%% <li>`{invalid, Argument}': no request was sent, because this argument or option is invalid</li>
%% <li>`no_daemon': no daemon answers at the control socket</li>
%% <li>`not_permitted': this user may not use the control socket; see `control_group' in pmd's configuration</li>
%% <li>`timeout', `closed': the response did not arrive, or not completely</li>
%% <li>`{bad_answer, What}': this client does not understand the response</li>
%% <li>`{socket, Posix}': any other operating system error</li>
%% </ul>

-type match() :: #{
    kind := name | service | binary(),
    name := binary(),
    host := binary(),
    port := inet:port_number(),
    metadata := #{binary() => pmd_json:value()},
    node_id => binary(),
    entry => address()
}.
%% A lookup result. `port' is the port on `host'; `entry' is where a program on this host connects to get there through
%% pmd, if pmd carries the traffic.

-type name() :: #{
    name := binary(),
    port := inet:port_number(),
    creation := non_neg_integer(),
    node_type := non_neg_integer(),
    registered_at := binary(),
    host => binary(),
    node_id => binary(),
    highest_version => non_neg_integer(),
    lowest_version => non_neg_integer()
}.
%% An Erlang node: `name' is the part before the `@'. `node_type' is 77 for a normal one, 72 and 104 for hidden and C
%% nodes, 110 for Java.

-type service() :: #{
    name := binary(),
    port := inet:port_number(),
    metadata := #{binary() => pmd_json:value()},
    registered_at := binary(),
    host => binary(),
    node_id => binary(),
    held => boolean(),
    expires_at => binary()
}.
%% A service.

-type member() :: #{
    id := binary(),
    host := binary(),
    oneself := boolean(),
    state := alive | suspect | binary(),
    addresses => [address()],
    version => binary(),
    metadata => #{binary() => pmd_json:value()},
    names => non_neg_integer(),
    services => non_neg_integer(),
    started_at => binary()
}.
%% A daemon of the cluster.

-type handle() :: pid().
%% A process that holds a registration; callers may link to it or monitor it.

-opaque subscription() :: {pid(), reference()}.
%% A subscription; the second element of its messages.

-type kind() :: name_up | name_down | service_up | service_down | node_up | node_suspect | node_down | node_left.
%% What an event is about: an Erlang node, a service, or a daemon (which stands for its host).

-type event() ::
    #{
        event := kind() | binary(),
        seq := non_neg_integer(),
        at := binary(),
        name := binary(),
        host := binary(),
        port => inet:port_number(),
        node_id => binary(),
        reason => binary()
    }
    | #{event := connected, boot_id := binary(), last := non_neg_integer()}
    | #{event := disconnected, reason := reason()}
    | #{event := gap, reason := too_old | restarted | unreadable | binary(), missed => non_neg_integer()}.
%% The content of a message; see {@link subscribe/1}.

%% How long a function waits for the daemon, in milliseconds, unless the option `timeout' is given.
-define(TIMEOUT, 5000).
%% The longest timeout accepted: the limit of erlang:send_after/3.
-define(MAX_TIMEOUT, 16#ffffffff).

%% @equiv lookup(Name, #{})
-spec lookup(text()) -> {ok, [match(), ...]} | {error, reason()}.
lookup(Name) -> lookup(Name, #{}).

%% @doc Finds the nodes and services with a name: `<<"web">>' on any host, or `<<"web@host7">>' on that host. The best
%% match comes first: this host, then hosts that respond, then the nearest.
%%
%% `kind' restricts the lookup to Erlang nodes (`name') or services (`service'); `timeout' is in milliseconds, 5,000 by
%% default.
-spec lookup(text(), #{kind => name | service, timeout => pos_integer()}) ->
    {ok, [match(), ...]} | {error, reason()}.
lookup(Name, Options) ->
    checked(fun() ->
        known(Options, [kind, timeout]),
        Kind = maps:get(kind, Options, any),
        lists:member(Kind, [any, name, service]) orelse invalid(kind),
        Kinds = [{<<"kind">>, atom_to_binary(Kind, utf8)} || Kind =/= any],
        get([<<"lookup">>], [{<<"name">>, text(name, Name)} | Kinds], Options, fun pmd_api:matches/1)
    end).

%% @equiv register(Name, Port, #{})
-spec register(text(), inet:port_number()) -> {ok, handle()} | {error, reason()}.
register(Name, Port) -> register(Name, Port, #{}).

%% @doc Registers a service of this host for the whole cluster, for as long as both the calling process and the returned
%% process are alive.
%%
%% If the daemon restarts, the service is registered again as soon as the daemon is back. If someone unregisters it, the
%% caller receives the message `{pmd_unregistered, Handle, Why}' and the handle terminates.
%%
%% `metadata' describes the service, in at most about 4 KiB. The error for a name that is taken is `{conflict, _}'.
-spec register(text(), inet:port_number(), #{
    metadata => #{atom() | binary() => text()}, timeout => pos_integer()
}) -> {ok, handle()} | {error, reason()}.
register(Name, Port, Options) ->
    checked(fun() ->
        known(Options, [metadata, timeout]),
        is_integer(Port) andalso Port > 0 andalso Port < 65536 orelse invalid(port),
        Body = #{name => text(name, Name), port => Port, metadata => metadata(maps:get(metadata, Options, #{}))},
        pmd_holder:start(self(), iolist_to_binary(pmd_json:encode(Body)), timeout(Options))
    end).

%% @doc Ends a registration, by its handle; or by its name, whoever holds it.
-spec unregister(handle() | text()) -> ok | {error, reason()}.
unregister(Handle) when is_pid(Handle) ->
    pmd_holder:stop(Handle);
unregister(Name) ->
    checked(fun() ->
        Path = [<<"v1">>, <<"services">>, text(name, Name)],
        case called(pmd_socket:call(delete, Path, [], none, ?TIMEOUT), fun pmd_api:service/1) of
            {ok, _} -> ok;
            {error, _} = Error -> Error
        end
    end).

%% @doc The Erlang nodes of the cluster, by host and name; only those of this host if its daemon is not clustered.
-spec names() -> {ok, [name()]} | {error, reason()}.
names() ->
    case names(#{scope => cluster}) of
        {error, {no_cluster, _}} -> names(#{scope => host});
        Answer -> Answer
    end.

%% @doc The Erlang nodes of the cluster, of one of its hosts, or of this host.
-spec names(#{scope => cluster | host, host => text(), timeout => pos_integer()}) ->
    {ok, [name()]} | {error, reason()}.
names(Options) ->
    checked(fun() ->
        known(Options, [scope, host, timeout]),
        Host = [{<<"host">>, text(host, Host)} || #{host := Host} <- [Options]],
        get([<<"names">>], scope(Options) ++ Host, Options, fun pmd_api:names/1)
    end).

%% @doc The services of the cluster, by name and host; only those of this host if its daemon is not clustered.
-spec services() -> {ok, [service()]} | {error, reason()}.
services() ->
    case services(#{scope => cluster}) of
        {error, {no_cluster, _}} -> services(#{scope => host});
        Answer -> Answer
    end.

%% @doc The services of the cluster, or of this host.
-spec services(#{scope => cluster | host, timeout => pos_integer()}) -> {ok, [service()]} | {error, reason()}.
services(Options) ->
    checked(fun() ->
        known(Options, [scope, timeout]),
        get([<<"services">>], scope(Options), Options, fun pmd_api:services/1)
    end).

%% @doc The daemons of the cluster; this host's comes first.
-spec nodes() -> {ok, [member()]} | {error, reason()}.
nodes() ->
    get([<<"nodes">>], [], #{}, fun pmd_api:nodes/1).

%% @equiv subscribe(Kinds, #{})
-spec subscribe(all | kind() | [kind()]) -> {ok, subscription()} | {error, reason()}.
subscribe(Kinds) -> subscribe(Kinds, #{}).

%% @doc Sends events of these kinds to the calling process, as messages `{pmd_event, Subscription, Event}', until the
%% process terminates or unsubscribes. Event is a map whose key `event' says what happened:
%% <ul>
%% <li>`name_up', `name_down', `service_up', `service_down', and, for daemons (hosts), `node_up', `node_suspect',
%%     `node_down', `node_left'; with `seq', `at', `name', `host' and, where known, `port', `node_id' and `reason'</li>
%% <li>`connected': events arrive from now on; also follows every `disconnected'</li>
%% <li>`disconnected', with `reason': the daemon is gone. The subscription keeps trying to reconnect; events that the
%%     daemon still has from the meantime are delivered then</li>
%% <li>`gap', with `reason': events were lost, because the daemon restarted (`restarted'), or because the subscriber was
%%     away or behind for longer than events are kept (`too_old', with `missed')</li>
%% </ul>
%% A subscriber that keeps a copy of the registry should read it again after `connected' and `gap'. An absent daemon is
%% not an error: the subscription waits for it.
%%
%% No events are read while the subscriber has more than 10,000 messages in its mailbox.
%%
%% `since' is the number of the last event already known: later events are delivered first, and 0 means all that the
%% daemon still has. `boot' is the `boot_id' of the daemon that issued the number.
-spec subscribe(all | kind() | [kind()], #{since => non_neg_integer(), boot => binary()}) ->
    {ok, subscription()} | {error, reason()}.
subscribe(Kinds, Options) ->
    checked(fun() ->
        known(Options, [since, boot]),
        Since = maps:get(since, Options, undefined),
        Since =:= undefined orelse is_integer(Since) andalso Since >= 0 orelse invalid(since),
        Boot = maps:get(boot, Options, undefined),
        Boot =:= undefined orelse is_binary(Boot) orelse invalid(boot),
        Tag = make_ref(),
        case pmd_subscription:start(self(), Tag, #{kinds => kinds(Kinds), since => Since, boot => Boot}) of
            {ok, Pid} -> {ok, {Pid, Tag}};
            {error, _} = Error -> Error
        end
    end).

%% @doc Ends a subscription and removes its messages from the caller's mailbox.
-spec unsubscribe(subscription()) -> ok.
unsubscribe({Pid, _} = Subscription) ->
    ok = pmd_subscription:stop(Pid),
    flush(Subscription).

%% @doc A reason as a sentence.
-spec format_error(reason()) -> unicode:chardata().
format_error(not_found) -> "no node or service has that name";
format_error(no_daemon) -> ["no pmd answers at its control socket, ", lists:join(" or ", pmd_socket:paths())];
format_error(not_permitted) -> "this user may not use pmd's control socket; see control_group in its configuration";
format_error(timeout) -> "pmd did not answer in time";
format_error(closed) -> "pmd closed the connection before its response was complete";
format_error({invalid, Argument}) -> io_lib:format("the argument or option ~ts is invalid", [Argument]);
format_error({bad_answer, What}) -> io_lib:format("cannot understand pmd's response: ~tp", [What]);
format_error({socket, Posix}) -> io_lib:format("the control socket of pmd: ~ts", [inet:format_error(Posix)]);
format_error({_, Explanation}) -> Explanation.

%% ---- requests

get(Path, Parameters, Options, Read) ->
    called(pmd_socket:call(get, [<<"v1">> | Path], Parameters, none, timeout(Options)), Read).

called({ok, {Status, Body}}, Read) when Status >= 200, Status < 300 -> Read(Body);
called({ok, {Status, Body}}, _) -> {error, pmd_api:failure(Status, Body)};
called({error, _} = Error, _) -> Error.

flush(Subscription) ->
    receive
        {pmd_event, Subscription, _} -> flush(Subscription)
    after 0 -> ok
    end.

%% ---- arguments

checked(Do) ->
    try
        Do()
    catch
        throw:{?MODULE, invalid, Argument} -> {error, {invalid, Argument}}
    end.

-spec invalid(atom()) -> no_return().
invalid(Argument) -> throw({?MODULE, invalid, Argument}).

%% Rejects unknown options: ignoring a misspelt one would give a wrong result.
known(Options, Known) when is_map(Options) ->
    case maps:keys(maps:without(Known, Options)) of
        [] -> ok;
        [Key | _] when is_atom(Key) -> invalid(Key);
        _ -> invalid(options)
    end;
known(_, _) ->
    invalid(options).

timeout(Options) ->
    case maps:get(timeout, Options, ?TIMEOUT) of
        Timeout when is_integer(Timeout), Timeout > 0, Timeout =< ?MAX_TIMEOUT -> Timeout;
        _ -> invalid(timeout)
    end.

scope(Options) ->
    case maps:get(scope, Options, cluster) of
        Scope when Scope =:= cluster; Scope =:= host -> [{<<"scope">>, atom_to_binary(Scope, utf8)}];
        _ -> invalid(scope)
    end.

kinds(all) -> [];
kinds(Kind) when is_atom(Kind) -> kinds([Kind]);
kinds([_ | _] = Kinds) ->
    Known = pmd_api:kinds(),
    [case lists:member(Kind, Known) of true -> atom_to_binary(Kind, utf8); false -> invalid(kind) end || Kind <- Kinds];
kinds(_) -> invalid(kind).

text(_, Atom) when is_atom(Atom) -> atom_to_binary(Atom, utf8);
text(Argument, Text) when is_list(Text); is_binary(Text) ->
    try unicode:characters_to_binary(Text) of
        Binary when is_binary(Binary), Binary =/= <<>> -> Binary;
        _ -> invalid(Argument)
    catch
        error:badarg -> invalid(Argument)
    end;
text(Argument, _) -> invalid(Argument).

metadata(Metadata) when is_map(Metadata) ->
    maps:from_list([{text(metadata, Key), value(Value)} || {Key, Value} <- maps:to_list(Metadata)]);
metadata(_) ->
    invalid(metadata).

value(Empty) when Empty =:= <<>>; Empty =:= "" -> <<>>;
value(Value) -> text(metadata, Value).
