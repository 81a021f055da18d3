%%% @private
%%% A process that reads the daemon's events and forwards them as messages.
%%%
%%% ```
%%%               hello                  end, or silence
%%%   connecting --------> connected ----------------------> waiting
%%%       ^                                                     |
%%%       +------- after a pause, with the last number read ----+
%%% '''
-module(pmd_subscription).

-behaviour(gen_server).

-export([start/3, stop/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).

%% Timeout of one attempt to reconnect; the process cannot notice meanwhile that the subscriber is gone.
-define(TIMEOUT, 2000).
%% The daemon sends a keep-alive every 15 s.
-define(SILENCE, 45000).
%% With more messages than this in the subscriber's mailbox, no events are read. The daemon keeps unread events for a
%% while, and reports how many it could not keep.
-define(CROWDED, 10000).
%% Pause before checking again whether the subscriber has caught up.
-define(CROWD_PAUSE, 50).
%% The longest error response.
-define(MAX_ERROR, 65536).

-record(state, {
    to :: pid(),
    monitor :: reference(),
    tag :: reference(),
    kinds :: [binary()],
    since :: undefined | non_neg_integer(),
    boot :: undefined | binary(),
    stream :: undefined | pmd_stream:stream(),
    status :: undefined | 100..599,
    reader = pmd_sse:new() :: pmd_sse:reader(),
    %% The connection state that the subscriber was last told.
    told = nothing :: nothing | connected | disconnected,
    silence :: undefined | reference(),
    delay = pmd_backoff:first() :: pos_integer()
}).

-type options() :: #{kinds := [binary()], since := undefined | non_neg_integer(), boot := undefined | binary()}.

%% @doc Subscribes `To' to events; messages carry this process and `Tag'.
-spec start(pid(), reference(), options()) -> {ok, pid()} | {error, pmd:reason()}.
start(To, Tag, Options) ->
    case gen_server:start(?MODULE, {To, Tag, Options}, []) of
        {ok, Pid} -> {ok, Pid};
        {error, {shutdown, Reason}} -> {error, Reason}
    end.

%% @doc Ends the subscription; when this returns, no more events are sent.
-spec stop(pid()) -> ok.
stop(Subscription) ->
    try
        gen_server:stop(Subscription)
    catch
        %% Already terminated.
        exit:_ -> ok
    end.

%% @private
-spec init({pid(), reference(), options()}) ->
    {ok, #state{}, {continue, more | {absent, pmd:reason()}}} | {stop, {shutdown, pmd:reason()}}.
init({To, Tag, #{kinds := Kinds, since := Since, boot := Boot}}) ->
    State = #state{to = To, monitor = monitor(process, To), tag = Tag, kinds = Kinds, since = Since, boot = Boot},
    %% Waits for the first piece, so that no event after the return of `subscribe' is missed.
    case connect(State) of
        {ok, Connected} -> {ok, Connected, {continue, more}};
        {error, {invalid_request, _} = Reason} -> {stop, {shutdown, Reason}};
        {error, Reason} -> {ok, State, {continue, {absent, Reason}}}
    end.

%% @private
-spec handle_continue(more | {absent, pmd:reason()}, #state{}) -> {noreply, #state{}}.
handle_continue(more, State) -> more(State);
handle_continue({absent, Reason}, State) -> waiting(Reason, State).

%% @private
-spec handle_call(term(), {pid(), term()}, #state{}) -> {reply, {error, unknown_call}, #state{}}.
handle_call(_, _, State) -> {reply, {error, unknown_call}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State};
handle_info(again, #state{stream = undefined} = State) ->
    case connect(State) of
        {ok, Connected} -> more(Connected);
        {error, Reason} -> waiting(Reason, State)
    end;
handle_info(more, #state{stream = Stream} = State) when Stream =/= undefined ->
    more(State);
%% A message of any other timer was cancelled too late.
handle_info({timeout, Timer, silence}, #state{silence = Timer} = State) ->
    waiting(timeout, State);
handle_info(Message, #state{stream = Stream} = State) when Stream =/= undefined ->
    case pmd_stream:handle(Message, Stream) of
        {ok, Pieces, Next} ->
            case pieces(Pieces, State#state{stream = Next}) of
                {ok, Read} -> more(Read);
                {error, Reason, Read} -> waiting(Reason, Read)
            end;
        {error, Reason} ->
            waiting(Reason, State);
        ignored ->
            {noreply, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

%% ---- the connection

connect(#state{kinds = Kinds, since = Since, boot = Boot} = State) ->
    Parameters =
        [{<<"kind">>, Kind} || Kind <- Kinds] ++
            [{<<"since">>, integer_to_binary(Since)} || Since =/= undefined] ++
            [{<<"boot">>, Boot} || Boot =/= undefined],
    Deadline = erlang:monotonic_time(millisecond) + ?TIMEOUT,
    case pmd_stream:open(get, [<<"v1">>, <<"events">>], Parameters, none, ?TIMEOUT) of
        {ok, Stream} ->
            Fresh = State#state{stream = Stream, reader = pmd_sse:new(), status = undefined},
            case opening(Fresh, Deadline, {undefined, [], ?MAX_ERROR}) of
                {ok, Connected} ->
                    {ok, Connected};
                {error, _} = Error ->
                    pmd_stream:close(Stream),
                    Error
            end;
        {error, _} = Error ->
            Error
    end.

%% Reads until the stream identifies the run of the daemon (its boot id), or the response turns out to be an error.
opening(#state{stream = Stream} = State, Deadline, Error) ->
    case pmd_stream:read(Stream, max(0, Deadline - erlang:monotonic_time(millisecond))) of
        {ok, [{status, 200} | Pieces], Next} -> opened(Pieces, State#state{stream = Next, status = 200}, Deadline);
        {ok, Pieces, Next} when State#state.status =:= 200 -> opened(Pieces, State#state{stream = Next}, Deadline);
        {ok, Pieces, Next} ->
            case pmd_http:whole(Pieces, Error) of
                {more, More} -> opening(State#state{stream = Next}, Deadline, More);
                {ok, {Status, Body}} -> {error, pmd_api:failure(Status, Body)};
                {error, Reason} -> {error, {bad_answer, Reason}}
            end;
        {error, _} = Failed ->
            Failed
    end.

opened(Pieces, State, Deadline) ->
    case pieces(Pieces, State) of
        {ok, #state{told = connected} = Connected} -> {ok, Connected};
        {ok, Read} -> opening(Read, Deadline, {undefined, [], ?MAX_ERROR});
        {error, Reason, _} -> {error, Reason}
    end.

%% Requests the next piece, unless the subscriber is behind.
more(#state{stream = Stream, to = To} = State) ->
    case process_info(To, message_queue_len) of
        {message_queue_len, Waiting} when Waiting > ?CROWDED ->
            erlang:send_after(?CROWD_PAUSE, self(), more),
            %% While nothing is read, silence is not a sign of a dead daemon.
            {noreply, listen(undefined, State)};
        _ ->
            ok = pmd_stream:more(Stream),
            {noreply, listen(?SILENCE, State)}
    end.

listen(Time, #state{silence = Before} = State) ->
    Before =:= undefined orelse erlang:cancel_timer(Before),
    State#state{silence = timer(Time)}.

timer(undefined) -> undefined;
timer(Time) -> erlang:start_timer(Time, self(), silence).

waiting(Reason, #state{stream = Stream, delay = Delay, told = Told} = State) ->
    Stream =:= undefined orelse pmd_stream:close(Stream),
    %% Reported once, however many attempts fail.
    Told =:= disconnected orelse send(#{event => disconnected, reason => Reason}, State),
    erlang:send_after(pmd_backoff:jittered(Delay), self(), again),
    {noreply, (listen(undefined, State))#state{stream = undefined, told = disconnected, delay = pmd_backoff:next(Delay)}}.

%% ---- reading the stream

pieces([], State) ->
    {ok, State};
pieces([{body, Data} | Pieces], #state{reader = Reader} = State) ->
    case pmd_sse:feed(Data, Reader) of
        {ok, Messages, Next} -> pieces(Pieces, lists:foldl(fun message/2, State#state{reader = Next}, Messages));
        {error, Reason} -> {error, {bad_answer, Reason}, State}
    end;
pieces([done | _], State) ->
    {error, closed, State};
pieces([_ | Pieces], State) ->
    pieces(Pieces, State).

message(#{event := <<"hello">>, data := Data}, State) ->
    case pmd_api:hello(Data) of
        {ok, #{boot_id := Boot, last := Last}} ->
            send(#{event => connected, boot_id => Boot, last => Last}, State),
            Since =
                case State of
                    #state{since = undefined} -> Last;
                    %% The numbers have restarted; the daemon sends everything it has.
                    #state{boot = Other} when Other =/= undefined, Other =/= Boot -> 0;
                    #state{since = Known} -> Known
                end,
            State#state{boot = Boot, since = Since, told = connected, delay = pmd_backoff:first()};
        {error, Reason} ->
            odd(<<"hello">>, Reason, State)
    end;
message(#{event := <<"gap">>, data := Data} = Message, State) ->
    sent(pmd_api:gap(Data), Message, State);
message(#{event := <<>>} = Message, State) ->
    counted(Message, State);
message(#{event := Kind, data := Data} = Message, State) ->
    sent(pmd_api:event(Kind, Data), Message, State).

sent({ok, Event}, Message, State) ->
    send(Event, State),
    counted(Message, State);
%% An event that cannot be read counts as missed; the stream continues.
sent({error, Reason}, #{event := Kind} = Message, State) ->
    counted(Message, odd(Kind, Reason, State)).

odd(Kind, Reason, State) ->
    logger:warning("pmd sent an event ~ts that cannot be read: ~tp", [Kind, Reason]),
    send(#{event => gap, reason => unreadable, missed => 1}, State),
    State.

counted(#{id := Id}, State) -> State#state{since = Id};
counted(_, State) -> State.

send(Event, #state{to = To, tag = Tag}) ->
    To ! {pmd_event, {self(), Tag}, Event},
    ok.
