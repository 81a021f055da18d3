-module(pmd_sse_tests).

-include_lib("eunit/include/eunit.hrl").

-define(STREAM, <<
    "event: hello\ndata: {\"last\":7}\n\n: keep-alive\nid: 9\n\nid: 10\nevent: name_up\ndata: a\ndata: b\n\nid: x\nnew\n\n"
>>).

read(Text, Size) -> read(Text, Size, pmd_sse:new(), []).

read(<<>>, _, _, Messages) ->
    {ok, Messages};
read(Text, Size, Reader, Messages) ->
    {Piece, Rest} = split_binary(Text, min(Size, byte_size(Text))),
    case pmd_sse:feed(Piece, Reader) of
        {ok, More, Next} -> read(Rest, Size, Next, Messages ++ More);
        Error -> Error
    end.

stream_is_read_in_pieces_of_any_size_test_() ->
    Expected = [
        #{event => <<"hello">>, data => <<"{\"last\":7}">>},
        #{event => <<>>, data => <<>>, id => 9},
        #{event => <<"name_up">>, data => <<"a\nb">>, id => 10},
        #{event => <<>>, data => <<>>, id => 10}
    ],
    [?_assertEqual({ok, Expected}, read(?STREAM, Size)) || Size <- lists:seq(1, byte_size(?STREAM))].

endless_line_is_an_error_test_() ->
    Long = binary:copy(<<"x">>, 70000),
    [
        ?_assertEqual({error, too_long}, read(Long, 1000)),
        ?_assertEqual({error, too_long}, read(<<Long/binary, "\n\n">>, 100000)),
        ?_assertEqual({error, too_long}, read(binary:copy(<<"data: aaaaaaaaaaaaaaaaaaaaaaaaa\n">>, 5000), 4096))
    ].
