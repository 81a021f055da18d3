%%% The client, against a daemon with canned responses.
-module(pmd_tests).

-include_lib("eunit/include/eunit.hrl").

-define(MATCH, <<"{\"kind\":\"name\",\"name\":\"bar\",\"host\":\"far\",\"node_id\":\"ab\",\"port\":4000,\"later\":[1]}">>).
-define(SERVICE, <<
    "{\"name\":\"web\",\"port\":80,\"metadata\":{\"k\":\"v\"},\"registered_at\":\"1970-01-01T00:00:00.000Z\",\"held\":true}"
>>).

%% One response for any request, then the connection closes.
always(Answer) -> fun(_, Socket) -> gen_tcp:send(Socket, Answer), gen_tcp:close(Socket) end.

failure(Status, Code) ->
    pmd_fake:answer(Status, [<<"{\"error\":{\"code\":\"">>, Code, <<"\",\"message\":\"m\",\"hint\":\"h\"}}">>]).

%% ---- requests

lookup_test() ->
    Matches = [<<"{\"query\":\"bar\",\"matches\":[">>, ?MATCH, <<",{\"kind\":\"service\",\"name\":\"bar\",\"host\":\"h\",\"port\":1,"
        "\"entry\":\"[::1]:9\",\"metadata\":{\"k\":\"v\"}}]}">>],
    pmd_fake:with(always(pmd_fake:answer(200, Matches)), fun() ->
        ?assertEqual(
            {ok, [
                #{kind => name, name => <<"bar">>, host => <<"far">>, node_id => <<"ab">>, port => 4000, metadata => #{}},
                #{kind => service, name => <<"bar">>, host => <<"h">>, port => 1,
                    entry => {{0, 0, 0, 0, 0, 0, 0, 1}, 9}, metadata => #{<<"k">> => <<"v">>}}
            ]},
            pmd:lookup('bar@far')
        ),
        ?assertEqual({<<"GET /v1/lookup?name=bar%40far HTTP/1.1">>, <<>>}, pmd_fake:request()),
        {ok, _} = pmd:lookup("bär", #{kind => service}),
        ?assertEqual({<<"GET /v1/lookup?name=b%C3%A4r&kind=service HTTP/1.1">>, <<>>}, pmd_fake:request())
    end).

errors_of_the_daemon_are_returned_test_() ->
    [
        ?_assertEqual({error, Reason}, pmd_fake:with(always(Answer), fun() -> pmd:lookup(x) end))
        || {Answer, Reason} <- [
            {failure(404, "not_found"), not_found},
            {failure(409, "no_cluster"), {no_cluster, <<"m; h">>}},
            {failure(503, "full"), {full, <<"m; h">>}},
            {failure(418, "of_a_later_version"), {other, <<"m; h">>}},
            {pmd_fake:answer(500, <<"no JSON">>), {bad_answer, {status, 500}}},
            {pmd_fake:answer(200, <<"no JSON">>), {bad_answer, {json, {unexpected, $n}}}},
            {pmd_fake:answer(200, <<"{\"matches\":7}">>), {bad_answer, {missing, <<"matches">>}}},
            {pmd_fake:answer(200, <<"{\"matches\":[7]}">>), {bad_answer, not_an_object}},
            {pmd_fake:answer(200, <<"{\"matches\":[{\"kind\":\"name\"}]}">>), {bad_answer, {missing, name}}},
            {<<"SSH-2.0\r\n\r\n">>, {bad_answer, bad_head}},
            {<<"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{">>, closed},
            {<<>>, closed}
        ]
    ].

names_work_without_a_cluster_test() ->
    Name = <<"{\"host\":\"here\",\"names\":[{\"name\":\"a\",\"port\":1,\"creation\":7,\"node_type\":77,"
        "\"registered_at\":\"now\",\"adopted\":false}]}">>,
    Answer = fun(Line, Socket) ->
        Said =
            case binary:match(Line, <<"scope=cluster">>) of
                nomatch -> pmd_fake:answer(200, Name);
                _ -> failure(409, "no_cluster")
            end,
        gen_tcp:send(Socket, Said)
    end,
    pmd_fake:with(Answer, fun() ->
        ?assertEqual(
            {ok, [#{name => <<"a">>, host => <<"here">>, port => 1, creation => 7, node_type => 77, registered_at => <<"now">>}]},
            pmd:names()
        ),
        ?assertMatch({error, {no_cluster, _}}, pmd:names(#{scope => cluster}))
    end).

no_daemon_test() ->
    true = os:putenv("PMD_SOCKET", "/nonexistent/pmd.sock"),
    ?assertEqual({error, no_daemon}, pmd:lookup(x)),
    ?assertEqual({error, no_daemon}, pmd:names()),
    ?assertEqual({error, no_daemon}, pmd:nodes()),
    ?assertEqual({error, no_daemon}, pmd:register(x, 1)),
    ?assertEqual({error, no_daemon}, pmd:unregister(x)),
    true = os:putenv("PMD_SOCKET", lists:duplicate(300, $a)),
    ?assertEqual({error, {socket, enametoolong}}, pmd:lookup(x)),
    true = os:unsetenv("PMD_SOCKET").

%% A user who may not use the control socket reads over the EPMD port.
page_test() ->
    Names = ["HOME", "PMD_HOME", "PMD_SOCKET", "ERL_EPMD_PORT"],
    Before = [{Name, os:getenv(Name, "")} || Name <- Names],
    {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}, binary, {active, false}]),
    {ok, Port} = inet:port(Listener),
    Page = spawn_link(fun() -> page(Listener) end),
    [true = os:putenv(Name, Value) || {Name, Value} <- lists:zip(Names, ["/nonexistent", "", "", integer_to_list(Port)])],
    try
        ?assertMatch({ok, [#{name := <<"web">>, port := 8080}]}, pmd:lookup(web)),
        ?assertEqual({error, no_daemon}, pmd:register(x, 1)),
        ?assertEqual({error, no_daemon}, pmd:unregister(x)),
        %% A daemon whose socket is named is another one, unless it says that this socket is its own.
        true = os:putenv("PMD_SOCKET", "/nonexistent/pmd.sock"),
        ?assertEqual({error, no_daemon}, pmd:lookup(web))
    after
        unlink(Page),
        exit(Page, kill),
        gen_tcp:close(Listener),
        [os:putenv(Name, Value) || {Name, Value} <- Before]
    end.

page(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    {ok, <<"GET /v1/lookup?name=web HTTP/1.1\r\nhost: localhost\r\n", _/binary>>} = gen_tcp:recv(Socket, 0),
    Found = <<"{\"query\":\"web\",\"matches\":[{\"kind\":\"service\",\"name\":\"web\",\"host\":\"h\",\"port\":8080}]}">>,
    ok = gen_tcp:send(Socket, pmd_fake:answer(200, Found)),
    gen_tcp:close(Socket),
    page(Listener).

missing_response_times_out_test() ->
    pmd_fake:with(fun(_, Socket) -> pmd_fake:hold_open(Socket) end, fun() ->
        ?assertEqual({error, timeout}, pmd:lookup(x, #{timeout => 100})),
        ?assertEqual({error, timeout}, pmd:register(x, 1, #{timeout => 100}))
    end).

invalid_arguments_are_named_test_() ->
    [
        ?_assertEqual({error, {invalid, Argument}}, apply(pmd, Function, Arguments))
        || {Function, Arguments, Argument} <- [
            {lookup, [""], name}, {lookup, [7], name}, {lookup, [[a]], name}, {lookup, [<<255>>], name},
            {lookup, [x, #{kind => host}], kind}, {lookup, [x, #{kinds => name}], kinds}, {lookup, [x, []], options},
            {lookup, [x, #{timeout => 0}], timeout}, {lookup, [x, #{timeout => infinity}], timeout},
            {register, [x, 0], port}, {register, [x, 65536], port}, {register, [x, "80"], port},
            {register, [x, 1, #{metadata => []}], metadata}, {register, [x, 1, #{metadata => #{a => 1}}], metadata},
            {names, [#{scope => world}], scope}, {unregister, [<<>>], name},
            {subscribe, [[]], kind}, {subscribe, [[name_up, "name_down"]], kind}, {subscribe, [name_sideways], kind},
            {subscribe, [all, #{since => -1}], since}, {subscribe, [all, #{boot => x}], boot}
        ]
    ].

every_reason_is_a_sentence_test_() ->
    [
        ?_assert(is_binary(unicode:characters_to_binary(pmd:format_error(Reason))))
        || Reason <- [
            not_found, no_daemon, not_permitted, timeout, closed, {invalid, port}, {bad_answer, bad_head},
            {socket, emfile}, {conflict, <<"x">>}
        ]
    ].

%% ---- registrations

%% A daemon that accepts every registration, until the connection or the test ends it.
registers(Test) ->
    fun(_, Socket) ->
        gen_tcp:send(Socket, [<<"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n">>, chunk([?SERVICE, $\n])]),
        Test ! {holds, self(), Socket},
        receive
            {say, Text} -> gen_tcp:send(Socket, Text)
        after 0 -> ok
        end,
        Test ! {released, pmd_fake:hold_open(Socket)}
    end.

chunk(Text) -> [integer_to_binary(iolist_size(Text), 16), "\r\n", Text, "\r\n"].

got(Pattern) ->
    receive
        Message when element(1, Message) =:= Pattern -> Message
    after 10000 -> error({nothing, Pattern})
    end.

service_ends_with_its_owner_test() ->
    pmd_fake:with(registers(self()), fun() ->
        Owner = spawn(fun() ->
            {ok, _} = pmd:register(<<"web">>, 80, #{metadata => #{k => "v"}}),
            receive stop -> ok end
        end),
        {Line, Body} = pmd_fake:request(),
        ?assertEqual(<<"POST /v1/services/hold HTTP/1.1">>, Line),
        ?assertEqual(
            {ok, #{<<"name">> => <<"web">>, <<"port">> => 80, <<"metadata">> => #{<<"k">> => <<"v">>}}},
            pmd_json:decode(Body)
        ),
        {holds, _, _} = got(holds),
        Owner ! stop,
        ?assertEqual({released, gone}, got(released))
    end).

service_ends_with_its_handle_test() ->
    pmd_fake:with(registers(self()), fun() ->
        {ok, First} = pmd:register(web, 80),
        ?assertEqual(ok, pmd:unregister(First)),
        ?assertEqual({released, gone}, got(released)),
        ?assertEqual(ok, pmd:unregister(First)),
        {ok, Second} = pmd:register(web, 80),
        exit(Second, kill),
        ?assertEqual({released, gone}, got(released))
    end).

service_is_registered_again_after_a_daemon_restart_test_() ->
    {timeout, 60, fun() ->
        {ok, Handle} =
            pmd_fake:with(registers(self()), fun() ->
                Registered = pmd:register(web, 80),
                {holds, _, _} = got(holds),
                Registered
            end),
        pmd_fake:with(always(failure(503, "ending")), fun() -> pmd_fake:request(), pmd_fake:request() end),
        pmd_fake:with(registers(self()), fun() ->
            {holds, _, _} = got(holds),
            ?assert(is_process_alive(Handle)),
            pmd:unregister(Handle),
            ?assertEqual({released, gone}, got(released))
        end)
    end}.

unregistering_by_name_ends_a_held_service_test() ->
    pmd_fake:with(registers(self()), fun() ->
        {ok, Handle} = pmd:register(web, 80),
        {holds, _, Socket} = got(holds),
        Monitor = monitor(process, Handle),
        gen_tcp:send(Socket, [chunk(<<"{\"ended\":\"unregistered\"}\n">>), <<"0\r\n\r\n">>]),
        ?assertEqual({pmd_unregistered, Handle, <<"unregistered">>}, got(pmd_unregistered)),
        ?assertMatch({'DOWN', Monitor, process, Handle, normal}, got('DOWN'))
    end).

taken_name_is_an_error_test() ->
    pmd_fake:with(always(failure(409, "conflict")), fun() ->
        ?assertEqual({error, {conflict, <<"m; h">>}}, pmd:register(web, 80))
    end).

%% ---- events

%% A stream whose messages the test sends.
streams(Test) ->
    fun(Line, Socket) ->
        gen_tcp:send(Socket, <<"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n">>),
        Test ! {stream, Line, Socket},
        pmd_fake:hold_open(Socket)
    end.

%% One that begins immediately, as the daemon's does.
opens(Test, Boot, Last) ->
    Said = hello(Boot, Last),
    fun(Line, Socket) ->
        gen_tcp:send(Socket, [<<"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n">>, Said]),
        Test ! {stream, Line, Socket},
        Test ! {over, pmd_fake:hold_open(Socket)}
    end.

hello(Boot, Last) ->
    [<<"event: hello\ndata: {\"boot_id\":\"">>, Boot, <<"\",\"last\":">>, integer_to_binary(Last), <<"}\n\n">>].

event(Seq, Kind) ->
    Number = integer_to_binary(Seq),
    [<<"id: ">>, Number, <<"\nevent: ">>, Kind, <<"\ndata: {\"seq\":">>, Number, <<",\"at\":\"now\",\"kind\":\"">>, Kind,
        <<"\",\"name\":\"foo\",\"host\":\"h\",\"port\":1}\n\n">>].

next(Subscription) ->
    receive
        {pmd_event, Subscription, Event} -> Event
    after 10000 -> error(no_event)
    end.

events_are_messages_test() ->
    pmd_fake:with(opens(self(), <<"one">>, 7), fun() ->
        {ok, Subscription} = pmd:subscribe([name_up, node_down]),
        {stream, Line, Socket} = got(stream),
        ?assertEqual(<<"GET /v1/events?kind=name_up&kind=node_down HTTP/1.1">>, Line),
        ?assertEqual(#{event => connected, boot_id => <<"one">>, last => 7}, next(Subscription)),
        gen_tcp:send(Socket, [event(8, <<"name_up">>), event(9, <<"of_a_later_version">>), <<": keep-alive\nid: 11\n\n">>]),
        ?assertEqual(
            #{event => name_up, seq => 8, at => <<"now">>, name => <<"foo">>, host => <<"h">>, port => 1},
            next(Subscription)
        ),
        ?assertMatch(#{event := <<"of_a_later_version">>, seq := 9}, next(Subscription)),
        ?assertError(badarg, binary_to_existing_atom(<<"of_a_later_version">>, utf8)),
        gen_tcp:send(Socket, <<"event: gap\ndata: {\"reason\":\"too_old\",\"missed\":3}\n\n">>),
        ?assertEqual(#{event => gap, reason => too_old, missed => 3}, next(Subscription)),
        gen_tcp:send(Socket, <<"event: name_up\ndata: {}\n\n">>),
        ?assertEqual(#{event => gap, reason => unreadable, missed => 1}, next(Subscription)),
        gen_tcp:send(Socket, event(12, <<"name_down">>)),
        {messages, _} = wait_for_event(),
        ?assertEqual(ok, pmd:unsubscribe(Subscription)),
        ?assertEqual({over, gone}, got(over)),
        receive {pmd_event, _, _} = Left -> error(Left) after 0 -> ok end
    end).

stream_resumes_by_number_test_() ->
    {timeout, 60, fun() ->
        {Subscription, _} =
            pmd_fake:with(opens(self(), <<"one">>, 7), fun() ->
                {ok, Subscribed} = pmd:subscribe(all),
                {stream, <<"GET /v1/events HTTP/1.1">>, Socket} = got(stream),
                #{event := connected} = next(Subscribed),
                gen_tcp:send(Socket, [event(8, <<"name_up">>), event(9, <<"name_up">>)]),
                #{seq := 8} = next(Subscribed),
                {Subscribed, #{seq := 9} = next(Subscribed)}
            end),
        ?assertEqual(#{event => disconnected, reason => closed}, next(Subscription)),
        pmd_fake:with(opens(self(), <<"one">>, 9), fun() ->
            {stream, Line, _} = got(stream),
            ?assertEqual(<<"GET /v1/events?since=9&boot=one HTTP/1.1">>, Line),
            ?assertEqual(#{event => connected, boot_id => <<"one">>, last => 9}, next(Subscription))
        end),
        ?assertMatch(#{event := disconnected}, next(Subscription)),
        %% A restarted daemon: its numbers start over.
        pmd_fake:with(opens(self(), <<"two">>, 5), fun() ->
            {stream, Line, Socket} = got(stream),
            ?assertEqual(<<"GET /v1/events?since=9&boot=one HTTP/1.1">>, Line),
            gen_tcp:send(Socket, <<"event: gap\ndata: {\"reason\":\"restarted\"}\n\n">>),
            ?assertMatch(#{event := connected, boot_id := <<"two">>}, next(Subscription)),
            ?assertEqual(#{event => gap, reason => restarted}, next(Subscription))
        end),
        ?assertMatch(#{event := disconnected}, next(Subscription)),
        pmd_fake:with(opens(self(), <<"two">>, 0), fun() ->
            {stream, Line, _} = got(stream),
            ?assertEqual(<<"GET /v1/events?since=0&boot=two HTTP/1.1">>, Line),
            pmd:unsubscribe(Subscription)
        end)
    end}.

subscription_waits_for_an_absent_daemon_test_() ->
    {timeout, 60, fun() ->
        true = os:putenv("PMD_SOCKET", "/nonexistent/pmd.sock"),
        {ok, Subscription} = pmd:subscribe(all, #{since => 3, boot => <<"one">>}),
        ?assertEqual(#{event => disconnected, reason => no_daemon}, next(Subscription)),
        pmd_fake:with(always(failure(503, "full")), fun() -> pmd_fake:request(), pmd_fake:request() end),
        pmd_fake:with(opens(self(), <<"one">>, 4), fun() ->
            {stream, Line, _} = got(stream),
            ?assertEqual(<<"GET /v1/events?since=3&boot=one HTTP/1.1">>, Line),
            %% Failed attempts before this one are not reported.
            ?assertMatch(#{event := connected}, next(Subscription)),
            pmd:unsubscribe(Subscription)
        end)
    end}.

unreadable_stream_is_reopened_test_() ->
    [
        {timeout, 20, fun() ->
            pmd_fake:with(streams(self()), fun() ->
                Test = self(),
                Subscriber = spawn_link(fun() ->
                    {ok, Subscription} = pmd:subscribe(all),
                    Test ! {told, next(Subscription)},
                    receive stop -> ok end
                end),
                {stream, _, Socket} = got(stream),
                gen_tcp:send(Socket, Text),
                ?assertEqual({told, #{event => disconnected, reason => {bad_answer, too_long}}}, got(told)),
                {stream, _, _} = got(stream),
                Subscriber ! stop
            end)
        end}
     || Text <- [binary:copy(<<"a">>, 70000), binary:copy(<<"data: aaaaaaaaaaaaaaaaaaaaaaaaa\n">>, 5000)]
    ].

unknown_event_kind_is_an_error_test() ->
    pmd_fake:with(always(failure(400, "invalid_request")), fun() ->
        ?assertEqual({error, {invalid_request, <<"m; h">>}}, pmd:subscribe(node_suspect))
    end).

stream_ends_with_the_subscriber_test() ->
    pmd_fake:with(opens(self(), <<"one">>, 0), fun() ->
        Subscriber = spawn(fun() -> {ok, _} = pmd:subscribe(all), receive stop -> ok end end),
        {stream, _, _} = got(stream),
        Subscriber ! stop,
        ?assertEqual({over, gone}, got(over))
    end).

%% A subscriber that does not read its messages does not receive an unbounded number of them.
slow_subscriber_is_not_flooded_test_() ->
    {timeout, 60, fun() ->
        pmd_fake:with(streams(self()), fun() ->
            Test = self(),
            Subscriber = spawn_link(fun() ->
                {ok, Subscription} = pmd:subscribe(all),
                Test ! subscribed,
                receive count -> Test ! {counted, count(Subscription, 0)} end
            end),
            {stream, _, Socket} = got(stream),
            Total = 60000,
            gen_tcp:send(Socket, hello(<<"one">>, 0)),
            receive subscribed -> ok end,
            Sender = spawn_link(fun() ->
                receive go -> ok end,
                [gen_tcp:send(Socket, [event(Seq, <<"name_up">>) || Seq <- lists:seq(From, From + 99)])
                    || From <- lists:seq(1, Total, 100)],
                receive stop -> ok end
            end),
            Sender ! go,
            wait_until(fun() -> queue(Subscriber) > 10000 end),
            %% It has stopped once the daemon's side is blocked.
            wait_until(fun() -> blocked(Sender) end),
            ?assert(queue(Subscriber) < 30000),
            Subscriber ! count,
            ?assertEqual({counted, Total}, got(counted)),
            Sender ! stop
        end)
    end}.

queue(Pid) ->
    {message_queue_len, Length} = process_info(Pid, message_queue_len),
    Length.

%% Whether the mailbox has not changed for a while.
blocked(Pid) ->
    {reductions, Before} = process_info(Pid, reductions),
    timer:sleep(300),
    {reductions, Before} =:= process_info(Pid, reductions).

count(Subscription, Total) ->
    receive
        {pmd_event, Subscription, #{event := connected}} -> count(Subscription, Total);
        {pmd_event, Subscription, #{seq := Seq}} when Seq =:= Total + 1, Seq < 60000 -> count(Subscription, Seq);
        {pmd_event, Subscription, #{seq := 60000}} when Total =:= 59999 -> 60000
    end.

%% Waits until a message is in the mailbox, and leaves it there.
wait_for_event() ->
    {messages, Messages} = Mailbox = process_info(self(), messages),
    case [Event || {pmd_event, _, _} = Event <- Messages] of
        [] -> timer:sleep(10), wait_for_event();
        [_] -> Mailbox
    end.

wait_until(Condition) ->
    Condition() orelse begin timer:sleep(10), wait_until(Condition) end.

%% ---- where the socket is

paths_test_() ->
    {foreach,
        fun() -> [{Name, os:getenv(Name, "")} || Name <- ["HOME", "PMD_HOME", "PMD_SOCKET", "ERL_EPMD_PORT"]] end,
        fun(Before) -> [os:putenv(Name, Value) || {Name, Value} <- Before] end,
        [
            fun(_) -> paths([], ["/h/.pmd/pmd-4369.sock", "/run/pmd/pmd-4369.sock"]) end,
            fun(_) -> paths([{"HOME", ""}], ["/run/pmd/pmd-4369.sock"]) end,
            fun(_) -> paths([{"PMD_HOME", "/p"}], ["/p/pmd-4369.sock"]) end,
            fun(_) -> paths([{"PMD_HOME", "/p"}, {"PMD_SOCKET", "/s"}], ["/s"]) end,
            fun(_) -> paths([{"PMD_HOME", "/p"}, {"ERL_EPMD_PORT", "5000"}], ["/p/pmd-5000.sock"]) end
        ]}.

paths(Set, Expected) ->
    [os:putenv(Name, "") || Name <- ["PMD_HOME", "PMD_SOCKET", "ERL_EPMD_PORT"]],
    os:putenv("HOME", "/h"),
    [os:putenv(Name, Value) || {Name, Value} <- Set],
    Paths = pmd_socket:paths(),
    ?_assertEqual(Expected, Paths).
