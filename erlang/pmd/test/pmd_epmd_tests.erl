%%% The epmd module, against a daemon with canned responses.
-module(pmd_epmd_tests).

-include_lib("eunit/include/eunit.hrl").

%% The result of a lookup.
found(Matches) ->
    Elements = [
        [<<"{\"kind\":\"name\",\"name\":\"b\\\"a\\\\r\",\"host\":\"far\",\"port\":1">>, Entry, <<"}">>]
     || Entry <- Matches
    ],
    pmd_fake:answer(200, [<<"{\"query\":\"bar@far\", \"more\" : [1.5e3, {\"a\":null}], \"matches\":[">>,
        lists:join($,, Elements), <<"]}\n">>]).

entry(Text) -> <<",\"entry\":\"", Text/binary, "\"">>.

asked(Family, Answer) ->
    pmd_fake:with(
        fun(_, Socket) -> gen_tcp:send(Socket, Answer), gen_tcp:close(Socket) end,
        fun() -> pmd_epmd:address_please("bar", "localhost", Family) end
    ).

-define(V6, {0, 0, 0, 0, 0, 0, 0, 1}).
-define(MAPPED, {0, 0, 0, 0, 0, 16#ffff, 16#7f4d, 16#0102}).

uses_an_entry_test_() ->
    [
        ?_assertEqual({ok, {127, 77, 1, 2}, 4000, 6}, asked(inet, found([entry(<<"127.77.1.2:4000">>)]))),
        ?_assertEqual({ok, ?MAPPED, 4000, 6}, asked(inet6, found([entry(<<"127.77.1.2:4000">>)]))),
        ?_assertEqual({ok, ?V6, 4001, 6}, asked(inet6, found([entry(<<"[::1]:4001">>)]))),
        ?_assertEqual({ok, {127, 77, 1, 2}, 1, 6}, asked(inet, found([entry(<<"127.77.1.2:1">>), entry(<<"1.1.1.1:9">>)])))
    ].

%% What erl_epmd does: resolve the host, then ask the port mapper there for the port.
falls_back_to_erl_epmd_test_() ->
    Stock = {ok, {127, 0, 0, 1}},
    Head = <<"HTTP/1.1 200 OK\r\n\r\n">>,
    [
        {Title, ?_assertEqual(Stock, asked(inet, Answer))}
        || {Title, Answer} <- [
            {"no entry", found([<<>>])},
            {"the best has none", found([<<>>, entry(<<"127.77.1.2:1">>)])},
            {"nothing found", found([])},
            {"of the wrong family", found([entry(<<"[::1]:4001">>)])},
            {"not found", pmd_fake:answer(404, <<"{\"error\":{\"code\":\"not_found\",\"message\":\"m\",\"hint\":\"h\"}}">>)},
            {"a service", pmd_fake:answer(200, <<"{\"matches\":[{\"kind\":\"service\",\"entry\":\"127.77.1.2:1\"}]}">>)},
            {"no port", found([entry(<<"127.77.1.2">>)])},
            {"port 0", found([entry(<<"127.77.1.2:0">>)])},
            {"no such port", found([entry(<<"127.77.1.2:65536">>)])},
            {"a name", found([entry(<<"far.example:1">>)])},
            {"half an address", found([entry(<<"127.1:1">>)])},
            {"cut off", [pmd_fake:answer(200, <<>>), binary:copy(<<"{\"matches\":[">>, 1)]},
            {"no JSON", [Head, <<"hello">>]},
            {"deep", [Head, binary:copy(<<"[">>, 100000)]},
            {"deep and long", [Head, binary:copy(<<"[{\"a\":">>, 100000)]},
            {"too long", [Head, <<"{\"a\":\"">>, binary:copy(<<"a">>, 2000000), <<"\"}">>]},
            {"much in little", [Head, $[, binary:copy(<<"[],">>, 300000), <<"1]">>]},
            {"not HTTP", <<"SSH-2.0\r\n\r\n">>},
            {"nothing", <<>>}
        ]
    ].

%% Without tunnels, and with a host unknown to the resolver: the address and port that its daemon has announced.
-define(NODES, <<
    "{\"cluster\":\"pmd\",\"nodes\":[{\"id\":\"me\",\"addresses\":[\"10.0.0.1:4369\"]},"
    "{\"id\":\"far\",\"addresses\":[\"[fd77::2]:4369\",\"10.0.0.2:4369\",\"10.0.0.3:4369\"]}]}"
>>).
-define(UNRESOLVABLE, "no-such-host.invalid").

unresolved(Family, Id, Nodes) ->
    Found = found([[<<",\"node_id\":\"">>, Id, <<"\"">>]]),
    Answer = fun(Line, Socket) ->
        case binary:match(Line, <<"/v1/nodes">>) of
            nomatch -> gen_tcp:send(Socket, Found);
            _ -> gen_tcp:send(Socket, pmd_fake:answer(200, Nodes))
        end,
        gen_tcp:close(Socket)
    end,
    pmd_fake:with(Answer, fun() -> pmd_epmd:address_please("bar", ?UNRESOLVABLE, Family) end).

unresolvable_host_is_reached_at_its_daemons_address_test_() ->
    Stock = erl_epmd:address_please("bar", ?UNRESOLVABLE, inet),
    [
        ?_assertMatch({error, _}, Stock),
        ?_assertEqual({ok, {10, 0, 0, 2}, 1, 6}, unresolved(inet, <<"far">>, ?NODES)),
        ?_assertEqual({ok, {16#fd77, 0, 0, 0, 0, 0, 0, 2}, 1, 6}, unresolved(inet6, <<"far">>, ?NODES)),
        ?_assertMatch({error, _}, unresolved(inet6, <<"me">>, ?NODES)),
        ?_assertEqual(Stock, unresolved(inet, <<"gone">>, ?NODES)),
        ?_assertEqual(Stock, unresolved(inet, <<"far">>, <<"{\"nodes\":[{\"id\":\"far\",\"addresses\":[\"x\"]}]}">>)),
        ?_assertEqual(Stock, unresolved(inet, <<"far">>, <<"[]">>))
    ].

truncated_response_is_ignored_test_() ->
    Answer = string:trim(iolist_to_binary(found([entry(<<"127.77.1.2:1">>)]))),
    {Body, 4} = binary:match(Answer, <<"\r\n\r\n">>),
    [
        ?_assertEqual({ok, {127, 0, 0, 1}}, asked(inet, binary:part(Answer, 0, Length)))
        || Length <- lists:seq(Body, byte_size(Answer) - 1)
    ].

name_is_escaped_in_the_request_test() ->
    Answer = fun(_, Socket) -> gen_tcp:send(Socket, found([])), gen_tcp:close(Socket) end,
    pmd_fake:with(Answer, fun() ->
        pmd_epmd:address_please("b&r", localhost, inet),
        {Line, <<>>} = pmd_fake:request(),
        ?assertEqual(<<"GET /v1/lookup?kind=name&name=%62%26%72%40%6C%6F%63%61%6C%68%6F%73%74 HTTP/1.0">>, Line)
    end).

falls_back_without_a_daemon_test() ->
    true = os:putenv("PMD_SOCKET", "/nonexistent/pmd.sock"),
    ?assertEqual({ok, {127, 0, 0, 1}}, pmd_epmd:address_please("bar", "localhost", inet)),
    %% Longer than a socket address can be.
    true = os:putenv("PMD_SOCKET", lists:duplicate(300, $a)),
    ?assertEqual({ok, {127, 0, 0, 1}}, pmd_epmd:address_please("bar", "localhost", inet)),
    true = os:unsetenv("PMD_SOCKET").

%% The wait for a daemon that hangs, or that drips single bytes, has a limit.
waiting_is_bounded_test_() ->
    Silent = fun(_, Socket) -> pmd_fake:hold_open(Socket) end,
    Slow = fun(_, Socket) -> slowly(Socket) end,
    [
        {timeout, 20, fun() ->
            pmd_fake:with(Answer, fun() ->
                {Micros, Answered} = timer:tc(fun() -> pmd_epmd:address_please("bar", "localhost", inet) end),
                ?assertEqual({ok, {127, 0, 0, 1}}, Answered),
                ?assert(Micros < 5000000),
                pmd_fake:request()
            end)
        end}
     || Answer <- [Silent, Slow]
    ].

slowly(Socket) ->
    case gen_tcp:send(Socket, <<"H">>) of
        ok -> timer:sleep(50), slowly(Socket);
        {error, _} -> ok
    end.

%% net_kernel is the caller: nothing may be left in its mailbox, and nothing may be linked to it.
leaves_no_messages_or_links_test() ->
    [asked(inet, Answer) || Answer <- [found([entry(<<"127.77.1.2:1">>)]), <<"no">>, found([])]],
    ?assertEqual({messages, []}, process_info(self(), messages)),
    ?assertMatch({monitors, []}, process_info(self(), monitors)).

%% The lookup of NAME@HOST at the port mapper, for nodes that may not use the control socket.
port_mapper_extension_test_() ->
    {setup, fun port_mapper/0, fun(Listener) -> gen_tcp:close(Listener), clean() end, fun(_) ->
        [
            ?_assertEqual({ok, {127, 0, 0, 1}, 4711, 6}, pmd_epmd:address_please("bar", "localhost", inet)),
            ?_assertEqual({ok, {127, 0, 0, 1}}, pmd_epmd:address_please("nobody", "localhost", inet)),
            %% Not used unless the environment says that its responses are ports of this host.
            fun() ->
                os:unsetenv("PMD_EPMD_TUNNELS"),
                ?assertEqual({ok, {127, 0, 0, 1}}, pmd_epmd:address_please("bar", "localhost", inet)),
                os:putenv("PMD_EPMD_TUNNELS", "true")
            end,
            %% Nor if the daemon itself locates the node and has no entry.
            ?_assertEqual({ok, {127, 0, 0, 1}}, direct())
        ]
    end}.

direct() ->
    Answer = asked(inet, found([<<>>])),
    os:putenv("PMD_SOCKET", "/nonexistent/pmd.sock"),
    Answer.

port_mapper() ->
    {ok, Listener} = gen_tcp:listen(0, [inet, {ip, {127, 0, 0, 1}}, binary, {active, false}]),
    {ok, Port} = inet:port(Listener),
    os:putenv("PMD_SOCKET", "/nonexistent/pmd.sock"),
    os:putenv("ERL_EPMD_PORT", integer_to_list(Port)),
    os:putenv("PMD_EPMD_TUNNELS", "true"),
    spawn_link(fun() -> map_ports(Listener) end),
    Listener.

map_ports(Listener) ->
    case gen_tcp:accept(Listener) of
        {ok, Socket} ->
            case gen_tcp:recv(Socket, 0) of
                {ok, <<14:16, 122, "bar@localhost">>} ->
                    gen_tcp:send(Socket, <<119, 0, 4711:16, 77, 0, 6:16, 5:16, 3:16, "bar", 0:16>>);
                {ok, _} ->
                    gen_tcp:send(Socket, <<119, 1>>)
            end,
            gen_tcp:close(Socket),
            map_ports(Listener);
        {error, closed} ->
            ok
    end.

clean() ->
    [os:unsetenv(Name) || Name <- ["PMD_SOCKET", "ERL_EPMD_PORT", "PMD_EPMD_TUNNELS"]].

other_functions_are_erl_epmds_test() ->
    Callbacks = [{F, A} || {F, A} <- erl_epmd:module_info(exports), lists:member(F, [
        start, start_link, stop, port_please, listen_port_please, names, register_node, address_please, open
    ])],
    ?assertEqual([], Callbacks -- pmd_epmd:module_info(exports)),
    ?assertEqual({ok, 0}, pmd_epmd:listen_port_please("a", "b")).

%% The module is used as a single file, at a time when little of OTP has started.
needs_no_other_module_of_this_application_test() ->
    {ok, {_, [{imports, Imports}]}} = beam_lib:chunks(code:which(pmd_epmd), [imports]),
    Modules = lists:usort([Module || {Module, _, _} <- Imports]),
    ?assertEqual([], [Module || Module <- Modules, lists:prefix("pmd", atom_to_list(Module))]).
