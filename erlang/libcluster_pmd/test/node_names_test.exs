defmodule Cluster.Strategy.Pmd.NodeNamesTest do
  use ExUnit.Case, async: true

  alias Cluster.Strategy.Pmd.NodeNames

  defp entry(name, host, type \\ 77), do: %{name: name, host: host, node_type: type, node_id: "id-" <> host}

  defp wanted(entries, own, names \\ :all, members \\ []), do: NodeNames.wanted(entries, members, own, names)

  test "the part after the @ follows the node's own" do
    entries = [entry("a", "web1"), entry("a", "web2.example.org")]
    assert wanted(entries, :a@web0) == ["a@web1", "a@web2"]
    assert wanted(entries, :"a@web0.example.com") == ["a@web1.example.com", "a@web2.example.org"]
  end

  test "nodes named by address are found by their host's address" do
    members = [
      %{id: "id-web1", addresses: [{{10, 0, 0, 7}, 4369}, {{10, 1, 0, 7}, 4369}]},
      %{id: "id-web2", addresses: []}
    ]

    entries = [entry("a", "web1"), entry("a", "web2"), entry("a", "web3")]
    assert NodeNames.addresses?(:"a@10.0.0.1")
    refute NodeNames.addresses?(:"a@web0.example.org")
    refute NodeNames.addresses?(:a@web0)
    assert wanted(entries, :"a@10.0.0.1", :all, members) == ["a@10.0.0.7"]
  end

  test "names select nodes" do
    entries = [entry("a", "h"), entry("ab", "h"), entry("rabbit", "h"), entry("a", "i")]
    assert wanted(entries, :a@own, :same) == ["a@h", "a@i"]
    assert wanted(entries, :x@own, :same) == []
    assert wanted(entries, :x@own, ["rabbit", "ab"]) == ["ab@h", "rabbit@h"]
    assert wanted(entries, :x@own, ~r/^a/) == ["a@h", "ab@h", "a@i"]
  end

  test "only normal nodes are connected" do
    entries = for type <- [72, 77, 104, 110], do: entry("t#{type}", "h", type)
    assert wanted(entries, :a@own) == ["t77@h"]
  end

  test "invalid node names are left out" do
    names = ["", "a b", "a@b", "a\n", "ä", String.duplicate("a", 256)]
    assert wanted(Enum.map(names, &entry(&1, "h")), :a@own) == []
    assert wanted([entry("a", ""), entry("a", "h h"), Map.delete(entry("a", "h"), :host)], :a@own) == []
  end
end
