%%% The epmd module, against a port mapper with canned responses.
-module(pmd_epmd_tests).

-include_lib("eunit/include/eunit.hrl").

-define(STOCK, {ok, {127, 0, 0, 1}}).
-define(MAPPED, {0, 0, 0, 0, 0, 16#ffff, 16#7f4e, 16#0102}).
-define(V6, {16#fd77, 0, 0, 0, 0, 0, 0, 2}).

%% A response of pmd: where to dial.
found(Name, Port, Address) ->
    Extra = <<"pmd", Address/binary>>,
    <<119, 0, Port:16, 77, 0, 6:16, 5:16, (byte_size(Name)):16, Name/binary, (byte_size(Extra)):16, Extra/binary>>.

%% The result of a question to which a port mapper on this host gives this answer, and the question.
asked(Name, Host, Family, Answer) ->
    asked(Name, Host, Family, fun(_) -> Answer end, []).

asked(Name, Host, Family, Answer, _) ->
    {ok, Listener} = gen_tcp:listen(0, [inet, {ip, {127, 0, 0, 1}}, binary, {active, false}]),
    {ok, Port} = inet:port(Listener),
    os:putenv("ERL_EPMD_PORT", integer_to_list(Port)),
    Self = self(),
    Server = spawn_link(fun() -> serve(Listener, Answer, Self) end),
    try
        pmd_epmd:address_please(Name, Host, Family)
    after
        unlink(Server),
        exit(Server, kill),
        gen_tcp:close(Listener),
        os:unsetenv("ERL_EPMD_PORT")
    end.

serve(Listener, Answer, Test) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    case gen_tcp:recv(Socket, 0) of
        {ok, <<_:16, 122, Question/binary>>} ->
            Test ! {question, Question},
            case Answer(Question) of
                silence -> receive after 60000 -> ok end;
                Bytes -> gen_tcp:send(Socket, Bytes)
            end;
        _ ->
            ok
    end,
    gen_tcp:close(Socket),
    serve(Listener, Answer, Test).

questions() ->
    receive
        {question, Question} -> [Question | questions()]
    after 0 -> []
    end.

dials_where_pmd_says_test_() ->
    Four = found(<<"bar">>, 4369, <<127, 78, 1, 2>>),
    Six = found(<<"bar">>, 4001, <<16#fd77:16, 0:96, 2:16>>),
    Mapped = found(<<"bar">>, 4369, <<0:80, 16#ffff:16, 127, 78, 1, 2>>),
    [
        ?_assertEqual({ok, {127, 78, 1, 2}, 4369, 6}, asked("bar", "far", inet, Four)),
        ?_assertEqual({ok, {127, 78, 1, 2}, 4369, 6}, asked(bar, far, inet, Four)),
        ?_assertEqual({ok, ?MAPPED, 4369, 6}, asked("bar", "far", inet6, Mapped)),
        ?_assertEqual({ok, ?V6, 4001, 6}, asked("bar", "far", inet6, Six)),
        ?_assertEqual({error, noport}, asked("bar", "far", inet, <<119, 2>>))
    ].

asks_for_the_host_as_it_is_written_test() ->
    questions(),
    asked("bar", "Far.Example", inet, <<119, 3>>),
    ?assertEqual([<<"bar@Far.Example@inet">>], questions()),
    asked("bar", {10, 0, 0, 2}, inet6, <<119, 3>>),
    ?assertEqual([<<"bar@10.0.0.2@inet6">>], questions()).

%% What erl_epmd does: resolve the host; then it asks the port mapper there for the port.
falls_back_to_erl_epmd_test_() ->
    [
        {Title, ?_assertEqual(?STOCK, asked("bar", "localhost", inet, Answer))}
        || {Title, Answer} <- [
            {"this host", <<119, 3>>},
            {"an unknown host", <<119, 1>>},
            {"of the wrong family", found(<<"bar">>, 1, <<0:128>>)},
            {"port 0", found(<<"bar">>, 0, <<127, 78, 1, 2>>)},
            {"another name", found(<<"baz">>, 1, <<127, 78, 1, 2>>)},
            {"the whole question as a name", found(<<"bar@localhost@inet">>, 1, <<127, 0, 0, 1>>)},
            {"no address", <<119, 0, 1:16, 77, 0, 6:16, 5:16, 3:16, "bar", 0:16>>},
            {"half an address", found(<<"bar">>, 1, <<127, 0>>)},
            {"cut off", binary:part(found(<<"bar">>, 1, <<127, 78, 1, 2>>), 0, 12)},
            {"more than there is", <<(found(<<"bar">>, 1, <<127, 78, 1, 2>>))/binary, 0>>},
            {"too long", binary:copy(<<0>>, 100000)},
            {"a later protocol", <<119, 0, 1:16, 77, 0, 9:16, 8:16, 3:16, "bar", 7:16, "pmd", 127, 78, 1, 2>>},
            {"not EPMD", <<"SSH-2.0\r\n\r\n">>},
            {"nothing", <<>>}
        ]
    ].

falls_back_without_a_daemon_test() ->
    os:putenv("ERL_EPMD_PORT", "1"),
    ?assertEqual(?STOCK, pmd_epmd:address_please("bar", "localhost", inet)),
    os:unsetenv("ERL_EPMD_PORT").

%% pmd does not know the name; the resolver does, and pmd knows the address.
a_name_of_a_members_address_is_that_member_test() ->
    questions(),
    Answer = fun
        (<<"bar@127.0.0.1@inet">>) -> found(<<"bar">>, 4369, <<127, 78, 1, 2>>);
        (_) -> <<119, 1>>
    end,
    ?assertEqual({ok, {127, 78, 1, 2}, 4369, 6}, asked("bar", "localhost", inet, Answer, [])),
    ?assertEqual([<<"bar@localhost@inet">>, <<"bar@127.0.0.1@inet">>], questions()).

%% Neither pmd nor the resolver knows the whole name; pmd knows the first part.
the_first_part_of_an_unresolvable_name_is_tried_test() ->
    questions(),
    Answer = fun
        (<<"bar@kx@inet">>) -> found(<<"bar">>, 4369, <<127, 78, 1, 2>>);
        (_) -> <<119, 1>>
    end,
    ?assertEqual({ok, {127, 78, 1, 2}, 4369, 6}, asked("bar", "kx.no-such-domain.invalid", inet, Answer, [])),
    ?assertEqual([<<"bar@kx.no-such-domain.invalid@inet">>, <<"bar@kx@inet">>], questions()),
    Stock = erl_epmd:address_please("bar", "ky.no-such-domain.invalid", inet),
    ?assertEqual(Stock, asked("bar", "ky.no-such-domain.invalid", inet, Answer, [])).

%% The wait for a daemon that hangs has a limit.
waiting_is_bounded_test_() ->
    {timeout, 20, fun() ->
        {Micros, Answered} = timer:tc(fun() -> asked("bar", "localhost", inet, fun(_) -> silence end, []) end),
        ?assertEqual(?STOCK, Answered),
        ?assert(Micros < 5000000)
    end}.

%% net_kernel is the caller: nothing may be left in its mailbox, and nothing may be linked to it.
leaves_no_messages_or_links_test() ->
    [asked("bar", "localhost", inet, Answer) || Answer <- [found(<<"bar">>, 1, <<127, 78, 1, 2>>), <<"no">>, <<>>]],
    questions(),
    ?assertEqual({messages, []}, process_info(self(), messages)),
    ?assertMatch({monitors, []}, process_info(self(), monitors)).

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
