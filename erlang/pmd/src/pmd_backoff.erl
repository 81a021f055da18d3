%%% @private
%%% How long to wait before the next attempt to reach the daemon: it is on the same host and mostly back within a second,
%%% so the first attempts come soon; all clients of a host must not come at the same moment, so each adds chance.
-module(pmd_backoff).

-export([first/0, next/1, jittered/1]).

-define(FIRST, 100).
%% As often as erl_epmd looks for its port mapper.
-define(LAST, 2000).

%% @doc The first delay, in milliseconds.
-spec first() -> pos_integer().
first() -> ?FIRST.

%% @doc The delay after this one.
-spec next(pos_integer()) -> pos_integer().
next(Delay) when is_integer(Delay) -> min(Delay * 2, ?LAST).

%% @doc From a half to all of it.
-spec jittered(pos_integer()) -> pos_integer().
jittered(Delay) -> Delay div 2 + rand:uniform(Delay - Delay div 2).
