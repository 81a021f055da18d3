%%% @private
%%% A streamed response of the daemon, read piece by piece as its reader asks for more.
%%%
%%% {@link read/2} waits for the first pieces. After {@link more/1}, the next piece arrives as a message for
%%% {@link handle/2}, and nothing further until `more' is called again, so a reader that cannot keep up makes the daemon
%%% wait.
-module(pmd_stream).

-export([open/5, read/2, more/1, handle/2, close/1]).
-export_type([stream/0]).

-record(stream, {socket :: gen_tcp:socket(), parser :: pmd_http:parser()}).

-opaque stream() :: #stream{}.
%% Belongs to the process that opened it, and closes with it.

%% @doc Sends a request.
-spec open(get | post, [binary()], [{binary(), binary()}], none | iodata(), pos_integer()) ->
    {ok, stream()} | {error, pmd_socket:failure()}.
open(Method, Segments, Parameters, Body, Timeout) ->
    case pmd_socket:connect(Timeout) of
        {ok, Socket} ->
            case gen_tcp:send(Socket, pmd_http:request(Method, pmd_http:path(Segments, Parameters), Body)) of
                ok ->
                    {ok, #stream{socket = Socket, parser = pmd_http:new()}};
                {error, Posix} ->
                    gen_tcp:close(Socket),
                    {error, pmd_socket:reason(Posix)}
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc Waits for the next pieces.
-spec read(stream(), non_neg_integer()) -> {ok, [pmd_http:piece()], stream()} | {error, pmd_socket:reason()}.
read(#stream{socket = Socket} = Stream, Timeout) ->
    case gen_tcp:recv(Socket, 0, Timeout) of
        {ok, Data} -> feed(Data, Stream);
        {error, Posix} -> ended(Posix, Stream)
    end.

%% @doc Asks for one more message.
-spec more(stream()) -> ok.
more(#stream{socket = Socket}) ->
    case inet:setopts(Socket, [{active, once}]) of
        ok -> ok;
        %% Reported in the same way as a connection that closes later.
        {error, _} -> self() ! {tcp_closed, Socket}, ok
    end.

%% @doc Interprets a message: the next pieces, the end, or nothing because it is not from this stream.
-spec handle(term(), stream()) ->
    {ok, [pmd_http:piece()], stream()} | {error, pmd_socket:reason()} | ignored.
handle({tcp, Socket, Data}, #stream{socket = Socket} = Stream) -> feed(Data, Stream);
handle({tcp_closed, Socket}, #stream{socket = Socket} = Stream) -> ended(closed, Stream);
handle({tcp_error, Socket, Posix}, #stream{socket = Socket} = Stream) -> ended(Posix, Stream);
handle(_, _) -> ignored.

%% @doc Closes the stream.
-spec close(stream()) -> ok.
close(#stream{socket = Socket}) -> gen_tcp:close(Socket).

feed(Data, #stream{parser = Parser} = Stream) ->
    case pmd_http:feed(Data, Parser) of
        {ok, Pieces, Next} -> {ok, Pieces, Stream#stream{parser = Next}};
        {error, Reason} -> {error, {bad_answer, Reason}}
    end.

%% A response without a length ends with its connection.
ended(closed, #stream{parser = Parser} = Stream) ->
    case pmd_http:finish(Parser) of
        ok -> {ok, [done], Stream};
        {error, closed} -> {error, closed}
    end;
ended(Posix, _) ->
    {error, pmd_socket:reason(Posix)}.
