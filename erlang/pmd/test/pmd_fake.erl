%%% A daemon with canned responses, on a control socket of its own.
-module(pmd_fake).

-export([start/1, stop/1, with/2, answer/2, answer/3, hold_open/1, request/0]).

%% `Answer(Request, Socket)' answers each connection, and the test receives `{request, Line, Body}' for it.
start(Answer) ->
    Path = filename:join("/tmp", "pmd-fake-" ++ os:getpid() ++ "-" ++ integer_to_list(erlang:unique_integer([positive]))),
    Test = self(),
    Ready = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        {ok, Listener} = gen_tcp:listen(0, [local, {ifaddr, {local, Path}}, binary, {active, false}, {backlog, 16}]),
        Test ! Ready,
        accept(Listener, Test, Answer)
    end),
    receive
        Ready -> ok;
        {'DOWN', Monitor, _, _, Reason} -> error(Reason)
    end,
    demonitor(Monitor, [flush]),
    true = os:putenv("PMD_SOCKET", Path),
    {Pid, Path}.

stop({Pid, Path}) ->
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, _, _, _} -> ok end,
    _ = file:delete(Path),
    true = os:unsetenv("PMD_SOCKET"),
    forget().

%% Drops messages of this daemon's connections, so that they are not mistaken for those of the next daemon.
forget() ->
    receive
        {request, _, _} -> forget();
        {holds, _, _} -> forget();
        {released, _} -> forget();
        {stream, _, _} -> forget();
        {over, _} -> forget()
    after 0 -> ok
    end.

with(Answer, Test) ->
    Fake = start(Answer),
    try
        Test()
    after
        stop(Fake)
    end.

accept(Listener, Test, Answer) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    %% Linked, so that connections end with the daemon.
    Connection = spawn_link(fun() ->
        receive go -> ok end,
        case read(Socket, <<>>) of
            {ok, Line, Body} ->
                Test ! {request, Line, Body},
                Answer(Line, Socket);
            closed ->
                ok
        end
    end),
    ok = gen_tcp:controlling_process(Socket, Connection),
    Connection ! go,
    accept(Listener, Test, Answer).

read(Socket, Before) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Data} ->
            Request = <<Before/binary, Data/binary>>,
            case binary:split(Request, <<"\r\n\r\n">>) of
                [Head, Body] ->
                    [Line | _] = binary:split(Head, <<"\r\n">>),
                    case re:run(Head, "content-length: ([0-9]+)", [{capture, [1], list}]) of
                        {match, [Length]} ->
                            case list_to_integer(Length) =< byte_size(Body) of
                                true -> {ok, Line, Body};
                                false -> read(Socket, Request)
                            end;
                        nomatch ->
                            {ok, Line, Body}
                    end;
                [_] ->
                    read(Socket, Request)
            end;
        {error, _} ->
            closed
    end.

%% A response with a length.
answer(Status, Body) -> answer(Status, <<"application/json">>, Body).

answer(Status, Type, Body) ->
    [
        <<"HTTP/1.1 ">>, integer_to_binary(Status), <<" Said\r\ncontent-type: ">>, Type, <<"\r\ncontent-length: ">>,
        integer_to_binary(iolist_size(Body)), <<"\r\n\r\n">>, Body
    ].

%% Waits until the other side closes.
hold_open(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, _} -> hold_open(Socket);
        {error, _} -> gone
    end.

%% The next request.
request() ->
    receive
        {request, Line, Body} -> {Line, Body}
    after 10000 -> error(no_request)
    end.
