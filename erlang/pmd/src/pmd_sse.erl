%%% @private
%%% Server-sent events (WHATWG HTML, "Interpreting an event stream"), as far as pmd's streams use them.
-module(pmd_sse).

-export([new/0, feed/2]).
-export_type([reader/0, message/0]).

-type message() :: #{id => non_neg_integer(), event := binary(), data := binary()}.
%% `id' is the last number in the stream, of this message or an earlier one; `event' is empty for a keep-alive.

-record(reader, {
    line = <<>> :: binary(),
    id :: undefined | non_neg_integer(),
    event = <<>> :: binary(),
    data = <<>> :: binary()
}).

-opaque reader() :: #reader{}.
%% The state of reading a stream.

%% The longest line, and the most data of one message. The daemon's own reader has the same bound, far above any event.
-define(MAX, 65536).

%% @doc A reader at the start of a stream.
-spec new() -> reader().
new() -> #reader{}.

%% @doc Takes the next bytes of a stream; returns the messages that are complete.
-spec feed(binary(), reader()) -> {ok, [message()], reader()} | {error, too_long}.
feed(Data, #reader{line = Line} = Reader) ->
    lines(binary:split(<<Line/binary, Data/binary>>, <<"\n">>), Reader, []).

lines([Line], Reader, Messages) when byte_size(Line) =< ?MAX ->
    {ok, lists:reverse(Messages), Reader#reader{line = Line}};
lines([Line, Rest], Reader, Messages) when byte_size(Line) =< ?MAX ->
    case line(Line, Reader) of
        {message, Message, Next} -> lines(binary:split(Rest, <<"\n">>), Next, [Message | Messages]);
        #reader{data = Data} when byte_size(Data) > ?MAX -> {error, too_long};
        Next -> lines(binary:split(Rest, <<"\n">>), Next, Messages)
    end;
lines(_, _, _) ->
    {error, too_long}.

line(<<>>, #reader{id = Id, event = Event, data = Data}) ->
    Message = #{event => Event, data => Data},
    %% The number also applies to the messages that follow.
    {message, maps:merge(Message, maps:from_list([{id, Id} || Id =/= undefined])), #reader{id = Id}};
line(Line, Reader) ->
    {Field, Value} =
        case binary:split(Line, <<":">>) of
            [Name, <<" ", Rest/binary>>] -> {Name, Rest};
            [Name, Rest] -> {Name, Rest};
            [Name] -> {Name, <<>>}
        end,
    field(Field, Value, Reader).

field(<<"id">>, Value, Reader) ->
    case re:run(Value, "^[0-9]{1,20}$", [{capture, none}, dollar_endonly]) of
        match -> Reader#reader{id = binary_to_integer(Value)};
        nomatch -> Reader
    end;
field(<<"event">>, Value, Reader) -> Reader#reader{event = Value};
field(<<"data">>, Value, #reader{data = <<>>} = Reader) -> Reader#reader{data = Value};
field(<<"data">>, Value, #reader{data = Data} = Reader) -> Reader#reader{data = <<Data/binary, $\n, Value/binary>>};
%% A comment, or a field of a later version.
field(_, _, Reader) -> Reader.
