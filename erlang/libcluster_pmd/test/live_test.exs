# Needs a daemon that knows another node with this node's own name, and a node that is not connected yet.
defmodule Cluster.Strategy.PmdLiveTest do
  use ExUnit.Case

  @moduletag :live

  alias Cluster.Strategy.State

  test "the node of the same name on another host is connected" do
    :ok = :net_kernel.monitor_nodes(true)

    state = %State{
      topology: :live,
      connect: {:net_kernel, :connect_node, []},
      disconnect: {:erlang, :disconnect_node, []},
      list_nodes: {:erlang, :nodes, [:connected]},
      config: [polling_interval: 1_000]
    }

    start_supervised!({Cluster.Strategy.Pmd, [state]})
    assert_receive {:nodeup, node}, 30_000
    [own, _] = Node.self() |> Atom.to_string() |> String.split("@")
    assert [^own, "beta"] = node |> Atom.to_string() |> String.split("@")
  end
end
