%% One end of a measurement. Reads commands from standard input, "ping NODE", "connect NODE", "send NODE SIZE MILLISECONDS"
%% and "trips NODE COUNT", and answers each with one line of numbers. Exits at the end of the input.
-module(tunnel_bench).
-export([start/0, sink/1, echo/0]).

%% The minimum number of messages, however short the time is.
-define(AT_LEAST, 4).

%% Carries out commands until the input ends; a crash ends the node.
start() ->
    spawn(fun() ->
        {_, Listener} = spawn_monitor(fun listen/0),
        receive
            {'DOWN', Listener, _, _, Reason} -> io:format(standard_error, "~p~n", [Reason]), halt(1)
        end
    end).

listen() ->
    io:format("ready~n"),
    loop().

loop() ->
    case io:get_line("") of
        Line when is_list(Line) ->
            [Verb, Node | Numbers] = string:lexemes(Line, " \n"),
            Answer = do(Verb, list_to_atom(Node), [list_to_integer(Number) || Number <- Numbers]),
            io:format("~s~n", [lists:join(" ", [integer_to_list(Number) || Number <- Answer])]),
            loop();
        _ ->
            erlang:halt(0)
    end.

do("ping", Node, []) ->
    [case net_adm:ping(Node) of pong -> 1; pang -> 0 end];
do("connect", Node, []) ->
    Begin = erlang:monotonic_time(microsecond),
    true = net_kernel:connect_node(Node),
    Took = erlang:monotonic_time(microsecond) - Begin,
    true = disconnect_node(Node),
    [Took];
do("send", Node, [Size, Milliseconds]) ->
    Sink = spawn_link(Node, ?MODULE, sink, [self()]),
    receive {Sink, ready} -> ok end,
    Payload = binary:copy(<<7>>, Size),
    send(Sink, Payload, erlang:monotonic_time(millisecond) + Milliseconds, ?AT_LEAST),
    Sink ! done,
    receive {Sink, Bytes, Microseconds} -> [Bytes, Microseconds] end;
do("trips", Node, [Count]) ->
    Echo = spawn_link(Node, ?MODULE, echo, []),
    _ = trips(Echo, Count div 10, []),
    Begin = erlang:monotonic_time(nanosecond),
    Trips = lists:sort(trips(Echo, Count, [])),
    Took = erlang:monotonic_time(nanosecond) - Begin,
    Echo ! stop,
    [lists:nth(max(1, Count div 2), Trips), lists:nth(max(1, Count * 99 div 100), Trips), Took div Count].

send(Sink, Payload, Until, Least) ->
    case Least > 0 orelse erlang:monotonic_time(millisecond) < Until of
        true -> Sink ! Payload, send(Sink, Payload, Until, Least - 1);
        false -> ok
    end.

sink(Parent) ->
    Parent ! {self(), ready},
    receive
        First when is_binary(First) -> sink(Parent, 0, erlang:monotonic_time(microsecond))
    end.

%% The first message starts the clock and is not counted.
sink(Parent, Bytes, Begin) ->
    receive
        Payload when is_binary(Payload) -> sink(Parent, Bytes + byte_size(Payload), Begin);
        done -> Parent ! {self(), Bytes, erlang:monotonic_time(microsecond) - Begin}
    end.

echo() ->
    receive
        {From, ping} -> From ! pong, echo();
        stop -> ok
    end.

trips(_, 0, Trips) ->
    Trips;
trips(Echo, Left, Trips) ->
    Begin = erlang:monotonic_time(nanosecond),
    Echo ! {self(), ping},
    receive pong -> ok end,
    trips(Echo, Left - 1, [erlang:monotonic_time(nanosecond) - Begin | Trips]).
