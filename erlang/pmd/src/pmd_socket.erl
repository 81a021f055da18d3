%%% @private
%%% The daemon's control socket: where it is, and requests over it.
%%%
%%% It is found as by the `pmd' command: `PMD_SOCKET'; otherwise `pmd-PORT.sock' in `PMD_HOME'; otherwise in
%%% `~/.pmd', and if nothing answers there, in `/run/pmd'. PORT is that of the node's port mapper: `ERL_EPMD_PORT', or
%%% 4369.
%%%
%%% A user who may not use the socket reads the same from the daemon's EPMD port, where it serves its status page.
-module(pmd_socket).

-export([paths/0, connect/1, reason/1, call/5]).
-export_type([reason/0, failure/0]).

-type failure() :: no_daemon | not_permitted | timeout | closed | {socket, term()}.
%% Why a connection failed.

-type reason() :: failure() | {bad_answer, term()}.
%% Why there is no response.
%% <ul>
%% <li>`no_daemon': no daemon answers at the control socket</li>
%% <li>`not_permitted': this user may not use the control socket; see `control_group' in pmd's configuration</li>
%% <li>`timeout': the response did not arrive in time</li>
%% <li>`closed': the daemon closed the connection before its response was complete</li>
%% <li>`{bad_answer, What}': this client does not understand the response</li>
%% <li>`{socket, Posix}': any other operating system error</li>
%% </ul>

%% The longest response that is accepted: a registry of 20,000 names.
-define(MAX_BODY, 16#1000000).

%% @doc The paths of the control socket, in the order in which they are tried.
-spec paths() -> [file:filename_all(), ...].
paths() ->
    File = "pmd-" ++ port() ++ ".sock",
    case {environment("PMD_SOCKET"), environment("PMD_HOME")} of
        {{ok, Socket}, _} -> [Socket];
        {none, {ok, Home}} -> [filename:join(Home, File)];
        {none, none} ->
            Own = [filename:join([Home, ".pmd", File]) || {ok, Home} <- [environment("HOME")]],
            Own ++ [filename:join("/run/pmd", File)]
    end.

%% As erl_epmd does: erlexec turns ERL_EPMD_PORT into an argument.
port() ->
    case {init:get_argument(epmd_port), environment("ERL_EPMD_PORT")} of
        {{ok, [[Port | _] | _]}, _} -> Port;
        {_, {ok, Port}} -> Port;
        _ -> "4369"
    end.

%% An empty variable counts as unset.
environment(Name) ->
    case os:getenv(Name, "") of
        "" -> none;
        Value -> {ok, Value}
    end.

%% @doc Opens a connection to the daemon, in passive mode.
-spec connect(timeout()) -> {ok, gen_tcp:socket()} | {error, failure()}.
connect(Timeout) ->
    connect(paths(), Timeout, no_daemon).

connect([], _, Reason) ->
    {error, Reason};
connect([Path | Paths], Timeout, Before) ->
    Options = [local, binary, {packet, raw}, {active, false}, {send_timeout, Timeout}],
    try gen_tcp:connect({local, Path}, 0, Options, Timeout) of
        {ok, Socket} -> {ok, Socket};
        {error, Posix} -> connect(Paths, Timeout, worse(Before, reason(Posix)))
    catch
        %% The path is longer than a socket address can be.
        _:_ -> connect(Paths, Timeout, worse(Before, {socket, enametoolong}))
    end.

%% Prefers a more specific reason than `no_daemon'.
worse(no_daemon, Reason) -> Reason;
worse(Reason, _) -> Reason.

%% @doc What a socket error means to the caller.
-spec reason(term()) -> failure().
reason(Posix) when Posix =:= enoent; Posix =:= econnrefused; Posix =:= enotdir -> no_daemon;
reason(Posix) when Posix =:= eacces; Posix =:= eperm -> not_permitted;
reason(Posix) when Posix =:= timeout; Posix =:= etimedout; Posix =:= eagain -> timeout;
reason(Posix) when Posix =:= closed; Posix =:= epipe; Posix =:= econnreset -> closed;
reason(Posix) -> {socket, Posix}.

%% @doc Sends one request and returns its response, all within `Timeout' milliseconds.
-spec call(get | post | delete, [binary()], [{binary(), binary()}], none | iodata(), pos_integer()) ->
    {ok, pmd_http:answer()} | {error, reason()}.
call(Method, Segments, Parameters, Body, Timeout) ->
    Deadline = erlang:monotonic_time(millisecond) + Timeout,
    Request = pmd_http:request(Method, pmd_http:path(Segments, Parameters), Body),
    case connect(Timeout) of
        {ok, Socket} -> exchange(Socket, Request, Deadline);
        {error, Reason} = Error when Method =:= get, (Reason =:= no_daemon orelse Reason =:= not_permitted) ->
            case is_on_page(Reason, Deadline) andalso on_page(Request, Deadline) of
                {ok, _} = Answer -> Answer;
                _ -> Error
            end;
        {error, _} = Error -> Error
    end.

exchange(Socket, Request, Deadline) ->
    try gen_tcp:send(Socket, Request) of
        ok -> answer(Socket, Deadline, pmd_http:new(), {undefined, [], ?MAX_BODY});
        {error, Posix} -> {error, reason(Posix)}
    after
        gen_tcp:close(Socket)
    end.

%% Whether the daemon on the EPMD port is the one that is meant: any, unless its socket is named.
is_on_page(Reason, Deadline) ->
    case {environment("PMD_SOCKET"), environment("PMD_HOME")} of
        {none, none} -> true;
        _ when Reason =:= no_daemon -> false;
        _ ->
            [Path] = paths(),
            Wanted = unicode:characters_to_binary(Path),
            case on_page(pmd_http:request(get, <<"/v1/status">>, none), Deadline) of
                {ok, {200, Body}} ->
                    case pmd_json:decode(Body) of
                        {ok, #{<<"socket">> := Wanted}} -> true;
                        _ -> false
                    end;
                _ ->
                    false
            end
    end.

%% A daemon may listen on one address family alone.
on_page(Request, Deadline) ->
    try list_to_integer(port()) of
        Port -> on_page([{{127, 0, 0, 1}, inet}, {{0, 0, 0, 0, 0, 0, 0, 1}, inet6}], Port, Request, Deadline)
    catch
        error:badarg -> {error, no_daemon}
    end.

on_page([], _, _, _) ->
    {error, no_daemon};
on_page([{Address, Family} | Others], Port, Request, Deadline) ->
    Left = max(0, Deadline - erlang:monotonic_time(millisecond)),
    Options = [Family, binary, {packet, raw}, {active, false}, {send_timeout, Left}],
    case gen_tcp:connect(Address, Port, Options, Left) of
        {ok, Socket} -> exchange(Socket, Request, Deadline);
        {error, _} -> on_page(Others, Port, Request, Deadline)
    end.

answer(Socket, Deadline, Parser, Sum) ->
    Left = max(0, Deadline - erlang:monotonic_time(millisecond)),
    case gen_tcp:recv(Socket, 0, Left) of
        {ok, Data} ->
            case pmd_http:feed(Data, Parser) of
                {ok, Pieces, Next} ->
                    case pmd_http:whole(Pieces, Sum) of
                        {ok, Answer} -> {ok, Answer};
                        {more, More} -> answer(Socket, Deadline, Next, More);
                        {error, Reason} -> {error, {bad_answer, Reason}}
                    end;
                {error, Reason} ->
                    {error, {bad_answer, Reason}}
            end;
        {error, End} when End =:= closed; End =:= econnreset ->
            at_the_end(pmd_http:finish(Parser), Sum);
        {error, Posix} ->
            {error, reason(Posix)}
    end.

%% A response without a length ends with its connection.
at_the_end(ok, Sum) ->
    {ok, Answer} = pmd_http:whole([done], Sum),
    {ok, Answer};
at_the_end({error, closed}, _) ->
    {error, closed}.
