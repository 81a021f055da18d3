-module(pmd_http_tests).

-include_lib("eunit/include/eunit.hrl").

-define(LENGTH, <<"HTTP/1.1 200 OK\r\nContent-Length:  5 \r\nx: y\r\n\r\nhello">>).
-define(CHUNKED, <<
    "HTTP/1.1 404 Not Found\r\ntransfer-encoding: Chunked\r\n\r\n"
    "3\r\nhel\r\n2;name=value\r\nlo\r\n0\r\ntrailer: x\r\n\r\n"
>>).
-define(TO_END, <<"HTTP/1.0 503 \r\nconnection: close\r\n\r\nhello">>).
-define(INTERIM, <<"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\ncontent-length: 0\r\n\r\n">>).

%% Parses a response in pieces of a given size; returns its status and body, or the error.
read(Text, Size) -> read(Text, Size, pmd_http:new(), {undefined, [], 1000}).

read(<<>>, _, Parser, Sum) ->
    case pmd_http:finish(Parser) of
        ok -> pmd_http:whole([done], Sum);
        Error -> Error
    end;
read(Text, Size, Parser, Sum) ->
    {Piece, Rest} = split_binary(Text, min(Size, byte_size(Text))),
    case pmd_http:feed(Piece, Parser) of
        {ok, Pieces, Next} ->
            case pmd_http:whole(Pieces, Sum) of
                {more, More} -> read(Rest, Size, Next, More);
                Other -> Other
            end;
        Error -> Error
    end.

pieces_test_() ->
    [
        {iolist_to_binary(io_lib:format("~p in pieces of ~b", [Expected, Size])),
            ?_assertEqual({ok, Expected}, read(Text, Size))}
        || {Text, Expected} <- [
            {?LENGTH, {200, <<"hello">>}},
            {?CHUNKED, {404, <<"hello">>}},
            {?TO_END, {503, <<"hello">>}},
            {?INTERIM, {200, <<>>}}
        ],
        Size <- [1, 2, 3, 5, 7, 16, 1000]
    ].

truncated_response_is_an_error_test_() ->
    [
        ?_assertEqual({error, closed}, read(binary:part(Text, 0, Length), 1000))
        || Text <- [?LENGTH, ?CHUNKED], Length <- lists:seq(0, byte_size(Text) - 1)
    ].

refuse_test_() ->
    Head = fun(Lines) -> iolist_to_binary(["HTTP/1.1 200 OK\r\n", Lines, "\r\n\r\n"]) end,
    Chunks = fun(Text) -> iolist_to_binary([Head("transfer-encoding: chunked"), Text]) end,
    [
        ?_assertEqual({error, Reason}, read(Text, Size))
        || {Text, Reason} <- [
            {<<"SSH-2.0-OpenSSH\r\n\r\n">>, bad_head},
            {<<"HTTP/1.1 2000 OK\r\n\r\n">>, bad_head},
            {<<"HTTP/2 200\r\n\r\n">>, bad_head},
            {Head("content-length: -1"), bad_head},
            {Head("content-length: 99999999999999999"), bad_head},
            {Head("content-length: 1\r\ncontent-length: 2"), bad_head},
            {Head("content-length: 1\r\ntransfer-encoding: chunked"), bad_head},
            {Head("transfer-encoding: gzip"), bad_head},
            {Head("no colon"), bad_head},
            {Head(lists:duplicate(9000, $a)), head_too_long},
            {binary:copy(<<"a">>, 10000), head_too_long},
            {Chunks("x\r\n"), bad_chunk},
            {Chunks("-1\r\n"), bad_chunk},
            {Chunks("\r\n"), bad_chunk},
            {Chunks("1\r\nab\r\n"), bad_chunk},
            {Chunks("11111111111111111\r\n"), bad_chunk},
            {Chunks(lists:duplicate(200, $0)), bad_chunk},
            {Chunks(["3e9\r\n", lists:duplicate(1001, $a)]), body_too_long},
            {iolist_to_binary([Head("x: y"), lists:duplicate(1001, $a)]), body_too_long}
        ],
        Size <- [1, 100000]
    ].

path_segments_are_escaped_test() ->
    ?assertEqual(
        <<"/v1/a%2F..%3F%20%0D%0A?k=%26%3D%25&%C3%A4=-._~Z9">>,
        pmd_http:path([<<"v1">>, <<"a/..? \r\n">>], [{<<"k">>, <<"&=%">>}, {<<"ä"/utf8>>, <<"-._~Z9">>}])
    ).

request_announces_the_length_of_its_body_test() ->
    ?assertEqual(
        <<"POST /v1/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
          "content-type: application/json\r\ncontent-length: 3\r\n\r\nabc">>,
        iolist_to_binary(pmd_http:request(post, <<"/v1/x">>, ["a", <<"bc">>]))
    ).
