%%% @private
%%% A process that holds the registration of a service, which lasts as long as the process.
%%%
%%% The daemon drops the service when the connection of `POST /v1/services/hold' closes, for whatever reason. If the
%%% daemon goes away, the holder registers again as soon as there is one.
-module(pmd_holder).

-behaviour(gen_server).

-export([start/3, stop/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).

%% Timeout of one attempt to register again; the holder cannot notice meanwhile that its owner is gone.
-define(TIMEOUT, 2000).
%% The longest line of the response: a service with the maximum of metadata.
-define(MAX_LINE, 262144).

-record(state, {
    owner :: pid(),
    monitor :: reference(),
    body :: iodata(),
    stream :: undefined | pmd_stream:stream(),
    %% The part of the next line that has arrived.
    line = <<>> :: binary(),
    delay = pmd_backoff:first() :: pos_integer()
}).

-type result() :: {noreply, #state{}} | {stop, normal, #state{}}.

%% @doc Registers a service for as long as `Owner' and the new process are alive.
-spec start(pid(), iodata(), pos_integer()) -> {ok, pid()} | {error, pmd:reason()}.
start(Owner, Body, Timeout) ->
    case gen_server:start(?MODULE, {Owner, Body, Timeout}, []) of
        {ok, Pid} -> {ok, Pid};
        {error, {shutdown, Reason}} -> {error, Reason}
    end.

%% @doc Ends the registration; when this returns, the connection is closed.
-spec stop(pid()) -> ok.
stop(Holder) ->
    try
        gen_server:stop(Holder)
    catch
        %% Already terminated.
        exit:_ -> ok
    end.

%% @private
-spec init({pid(), iodata(), pos_integer()}) ->
    {ok, #state{}, {continue, more}} | {stop, {shutdown, pmd:reason()}}.
init({Owner, Body, Timeout}) ->
    State = #state{owner = Owner, monitor = monitor(process, Owner), body = Body},
    case register_service(State, Timeout) of
        {ok, Registered} -> {ok, Registered, {continue, more}};
        %% Not a fault of this process, so nothing is logged.
        {error, Reason} -> {stop, {shutdown, Reason}}
    end.

%% @private
%% Handles what arrived with the first line, before more is requested.
-spec handle_continue(more, #state{}) -> result().
handle_continue(more, State) ->
    lines(State).

%% @private
-spec handle_call(term(), {pid(), term()}, #state{}) -> {reply, {error, unknown_call}, #state{}}.
handle_call(_, _, State) -> {reply, {error, unknown_call}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> result().
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State};
handle_info(again, #state{stream = undefined} = State) ->
    case register_service(State, ?TIMEOUT) of
        {ok, Registered} -> lines(Registered);
        {error, _} -> retry(State)
    end;
handle_info(Message, #state{stream = Stream} = State) when Stream =/= undefined ->
    case pmd_stream:handle(Message, Stream) of
        {ok, Pieces, Next} -> body(Pieces, State#state{stream = Next});
        {error, _} -> lost(State);
        ignored -> {noreply, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

%% One attempt: reads the response up to its first line.
register_service(#state{body = Body} = State, Timeout) ->
    Deadline = erlang:monotonic_time(millisecond) + Timeout,
    case pmd_stream:open(post, [<<"v1">>, <<"services">>, <<"hold">>], [], Body, Timeout) of
        {ok, Stream} ->
            case opening(Stream, Deadline, {undefined, [], ?MAX_LINE}) of
                {ok, Line, Held} ->
                    {ok, State#state{stream = Held, line = Line, delay = pmd_backoff:first()}};
                {error, _} = Error ->
                    pmd_stream:close(Stream),
                    Error
            end;
        {error, _} = Error ->
            Error
    end.

opening(Stream, Deadline, Sum) ->
    case pmd_stream:read(Stream, max(0, Deadline - erlang:monotonic_time(millisecond))) of
        {ok, Pieces, Next} ->
            case pmd_http:whole(Pieces, Sum) of
                {more, {200, Body, _} = More} ->
                    case binary:split(iolist_to_binary(lists:reverse(Body)), <<"\n">>) of
                        [_, Rest] -> {ok, Rest, Next};
                        [_] -> opening(Next, Deadline, More)
                    end;
                {more, More} -> opening(Next, Deadline, More);
                {ok, {200, _}} -> {error, closed};
                {ok, {Status, Body}} -> {error, pmd_api:failure(Status, Body)};
                {error, Reason} -> {error, {bad_answer, Reason}}
            end;
        {error, _} = Error ->
            Error
    end.

body([], State) -> lines(State);
body([{body, Data} | Pieces], #state{line = Line} = State) -> body(Pieces, State#state{line = <<Line/binary, Data/binary>>});
body([done | _], State) -> lines(State, ended);
body([_ | Pieces], State) -> body(Pieces, State).

lines(State) -> lines(State, open).

%% The only line after the first says that someone else has ended the service.
lines(#state{line = Line, owner = Owner} = State, End) ->
    case binary:split(Line, <<"\n">>) of
        [Text, Rest] ->
            case pmd_json:decode(Text) of
                {ok, #{<<"ended">> := Why}} when is_binary(Why) ->
                    Owner ! {pmd_unregistered, self(), Why},
                    {stop, normal, State};
                _ ->
                    lines(State#state{line = Rest}, End)
            end;
        [_] when End =:= ended; byte_size(Line) > ?MAX_LINE ->
            lost(State);
        [_] ->
            ok = pmd_stream:more(State#state.stream),
            {noreply, State}
    end.

lost(#state{stream = Stream} = State) ->
    pmd_stream:close(Stream),
    retry(State#state{stream = undefined, line = <<>>}).

retry(#state{delay = Delay} = State) ->
    erlang:send_after(pmd_backoff:jittered(Delay), self(), again),
    {noreply, State#state{delay = pmd_backoff:next(Delay)}}.
