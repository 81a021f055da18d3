%%% @private
%%% How long to wait before the next attempt to reach the daemon. It is on the same host and usually back within a
%%% second, so the first attempts follow quickly; jitter keeps the clients of a host from arriving at the same moment.
-module(pmd_backoff).

-export([first/0, next/1, jittered/1]).

-define(FIRST, 100).
%% The interval at which erl_epmd looks for its port mapper.
-define(LAST, 2000).

%% @doc The first delay, in milliseconds.
-spec first() -> pos_integer().
first() -> ?FIRST.

%% @doc The delay after this one.
-spec next(pos_integer()) -> pos_integer().
next(Delay) when is_integer(Delay) -> min(Delay * 2, ?LAST).

%% @doc A random delay between half of this one and all of it.
-spec jittered(pos_integer()) -> pos_integer().
jittered(Delay) -> Delay div 2 + rand:uniform(Delay - Delay div 2).
