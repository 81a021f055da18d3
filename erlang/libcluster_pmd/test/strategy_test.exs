defmodule Cluster.Strategy.PmdTest do
  use ExUnit.Case

  import ExUnit.CaptureLog

  alias Cluster.Strategy.State

  # A daemon with canned responses, and a network in which every connection succeeds.
  defmodule Fake do
    def start(test),
      do: Agent.start_link(fn -> %{test: test, names: {:ok, []}, connected: []} end, name: __MODULE__)

    def set(names), do: Agent.update(__MODULE__, &%{&1 | names: names})
    def subscribe(kinds), do: tell({:subscribed, kinds, self()}, {:ok, :subscription})
    def names, do: tell(:asked, Agent.get(__MODULE__, & &1.names))
    def format_error(reason), do: inspect(reason)

    def connect(:tag, node) do
      Agent.update(__MODULE__, &%{&1 | connected: [node | &1.connected]})
      tell({:connected, node}, true)
    end

    def disconnect(node) do
      Agent.update(__MODULE__, &%{&1 | connected: List.delete(&1.connected, node)})
      tell({:disconnected, node}, true)
    end

    def list, do: Agent.get(__MODULE__, & &1.connected)

    defp tell(message, answer) do
      send(Agent.get(__MODULE__, & &1.test), message)
      answer
    end
  end

  setup do
    start_supervised!(%{id: Fake, start: {Fake, :start, [self()]}})
    :ok
  end

  defp start(config) do
    state = %State{
      topology: :test,
      connect: {Fake, :connect, [:tag]},
      disconnect: {Fake, :disconnect, []},
      list_nodes: {Fake, :list, []},
      config: [client: Fake] ++ config
    }

    start_supervised!({Cluster.Strategy.Pmd, [state]})
  end

  defp entries(names), do: {:ok, Enum.map(names, &%{name: &1, host: "h", node_type: 77})}

  defp event(strategy, event), do: send(strategy, {:pmd_event, :subscription, %{event: event}})

  # Tests of nodes need a node: `elixir --sname test ...`, with a port mapper running.
  @tag :live
  test "nodes are connected when events report them" do
    Fake.set(entries(["a"]))
    strategy = start(names: :all, polling_interval: 3_600_000)
    assert_receive {:subscribed, kinds, ^strategy}
    assert :name_up in kinds
    assert_receive {:connected, :a@h}

    Fake.set(entries(["a", "b"]))
    event(strategy, :name_up)
    assert_receive {:connected, :b@h}
    refute_received {:connected, :a@h}
  end

  @tag :live
  test "many events cause one request, and irrelevant events cause none" do
    strategy = start(names: :all, polling_interval: 3_600_000)
    assert_receive :asked
    for _ <- 1..1000, do: event(strategy, :name_up)
    assert_receive :asked
    event(strategy, :disconnected)
    event(strategy, :node_suspect)
    send(strategy, :whatever)
    _ = :sys.get_state(strategy)
    refute_receive :asked, 300
  end

  @tag :live
  test "a failed read is retried, and logged once" do
    Fake.set({:error, :no_daemon})

    log =
      capture_log(fn ->
        start(names: :all, polling_interval: 10)
        for _ <- 1..5, do: assert_receive(:asked)
        Fake.set(entries(["a"]))
        assert_receive {:connected, :a@h}
      end)

    assert [_] = Regex.scan(~r/cannot ask pmd: :no_daemon/, log)
  end

  @tag :live
  test "a node that is gone is disconnected only if so configured" do
    Fake.set(entries(["a", "b"]))
    start(names: :all, polling_interval: 10, disconnect_after: 30)
    assert_receive {:connected, :b@h}
    Fake.set(entries(["a"]))
    assert_receive {:disconnected, :b@h}
    stop_supervised!(Cluster.Strategy.Pmd)

    Fake.set(entries(["a", "b"]))
    start(names: :all, polling_interval: 10)
    assert_receive {:connected, :b@h}
    Fake.set(entries(["a"]))
    for _ <- 1..10, do: assert_receive(:asked)
    refute_received {:disconnected, _}
  end

  @tag :live
  test "a registry full of names does not fill the atom table" do
    Fake.set(entries(for number <- 1..500, do: "flood#{number}"))

    log =
      capture_log(fn ->
        start(names: :all, polling_interval: 3_600_000, max_nodes: 10)
        for _ <- 1..10, do: assert_receive({:connected, _})
        refute_receive {:connected, _}, 100
      end)

    assert log =~ "more than max_nodes"
    assert_raise ArgumentError, fn -> String.to_existing_atom("flood" <> "400@h") end
  end

  test "an unnamed node logs why it does not connect" do
    unless Node.alive?() do
      log =
        capture_log(fn ->
          start([])
          assert_receive {:subscribed, _, strategy}
          _ = :sys.get_state(strategy)
        end)

      assert log =~ "this node has no name"
    end
  end
end
