-module(pmd_json_tests).

-include_lib("eunit/include/eunit.hrl").

decode_test_() ->
    [
        {Text, ?_assertEqual({ok, Value}, pmd_json:decode(list_to_binary(Text)))}
        || {Text, Value} <- [
            {"null", null},
            {" [ true , false ] ", [true, false]},
            {"{}", #{}},
            {"[]", []},
            {"{\"a\": {\"b\": [1, -2, 0]}}", #{<<"a">> => #{<<"b">> => [1, -2, 0]}}},
            {"18446744073709551615", 18446744073709551615},
            {"-0.5", -0.5},
            {"1e3", 1000.0},
            {"1.5E-2", 0.015},
            {"\"\"", <<>>},
            {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", <<"\"\\/\b\f\n\r\t">>},
            {"\"a\\u00e4b\"", <<"aäb"/utf8>>},
            {"\"\\ud83d\\ude00\"", <<"😀"/utf8>>},
            {binary_to_list(<<"\"häß😀\""/utf8>>), <<"häß😀"/utf8>>}
        ]
    ].

refuse_test_() ->
    [
        ?_assertEqual({error, Reason}, pmd_json:decode(iolist_to_binary(Text)))
        || {Text, Reason} <- [
            {"", truncated},
            {"[1", truncated},
            {"{\"a\":1", truncated},
            {"\"a", truncated},
            {"\"\\u00", truncated},
            {"1 2", trailing},
            {"[1,]", {unexpected, $]}},
            {"{,}", {unexpected, $,}},
            {"{\"a\" 1}", {unexpected, $1}},
            {"{a:1}", {unexpected, $a}},
            {"nul", {unexpected, $n}},
            {"'a'", {unexpected, $'}},
            {"01", bad_number},
            {"1.", bad_number},
            {"-", bad_number},
            {"1e999", bad_number},
            {lists:duplicate(41, $1), bad_number},
            {"\"\\x\"", bad_string},
            {"\"\\ud83d\"", bad_string},
            {"\"\\ud83d\\u0041\"", bad_string},
            {"\"\\udc00\"", bad_string},
            {[$", 10, $"], bad_string},
            {[$", 255, $"], bad_string},
            {"{\"a\":1,\"a\":2}", duplicate_key},
            {[lists:duplicate(33, $[), lists:duplicate(33, $])], too_deep},
            {lists:duplicate(100000, $[), too_deep}
        ]
    ].

deepest_allowed_nesting_is_decoded_test() ->
    ?assertMatch({ok, [_]}, pmd_json:decode(iolist_to_binary([lists:duplicate(32, $[), lists:duplicate(32, $])]))).

encode_decode_round_trip_test_() ->
    [
        ?_assertEqual({ok, Value}, pmd_json:decode(iolist_to_binary(pmd_json:encode(Value))))
        || Value <- [
            null, true, 0, -17, 1.0e300, 0.1, <<>>, <<"ä\"\\\n\e\0"/utf8>>, [], [[], #{}],
            #{<<"a">> => [1, <<"b">>], <<"c\"">> => null}
        ]
    ].

atoms_are_encoded_as_strings_test() ->
    ?assertEqual(<<"{\"port\":\"a\"}">>, iolist_to_binary(pmd_json:encode(#{port => a}))).

unencodable_terms_are_rejected_test_() ->
    [?_assertError(badarg, pmd_json:encode(Value)) || Value <- [<<255>>, {1}, self(), #{1 => 2}, [<<255>>]]].

%% However a text is mutated, it is either decoded or rejected.
mutations_test() ->
    rand:seed(exsss, {1, 2, 3}),
    Text = <<"{\"query\":\"a\\u00e4\",\"matches\":[{\"port\":4369,\"metadata\":{\"k\":\"v\"},\"x\":[1.5e3,null,true]}]}">>,
    Atoms = erlang:system_info(atom_count),
    [decoded(mutated(Text)) || _ <- lists:seq(1, 20000)],
    [decoded(binary:part(Text, 0, Length)) || Length <- lists:seq(0, byte_size(Text) - 1)],
    ?assert(erlang:system_info(atom_count) - Atoms < 100).

mutated(Text) ->
    lists:foldl(
        fun(_, Before) ->
            At = rand:uniform(byte_size(Before)) - 1,
            <<Head:At/binary, _, Tail/binary>> = Before,
            Byte = case rand:uniform(3) of 1 -> rand:uniform(256) - 1; _ -> lists:nth(rand:uniform(12), "{}[]\",:\\u01-") end,
            <<Head/binary, Byte, Tail/binary>>
        end,
        Text,
        lists:seq(1, rand:uniform(4))
    ).

decoded(Text) ->
    case pmd_json:decode(Text) of
        {ok, Value} -> ?assertEqual({ok, Value}, pmd_json:decode(iolist_to_binary(pmd_json:encode(Value))));
        {error, _} -> ok
    end.
