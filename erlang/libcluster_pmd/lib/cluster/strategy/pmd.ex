defmodule Cluster.Strategy.Pmd do
  @moduledoc """
  Connects the nodes that are registered with pmd, on whatever host.

  Every node registers with the port mapper of its host as ever; the pmd daemons of the cluster share what is
  registered. This strategy reads it from the daemon of its own host and follows its events, so that a node is
  connected as soon as it is up, without lists of hosts, DNS records or an orchestrator's API.

      config :libcluster,
        topologies: [
          pmd: [
            strategy: Cluster.Strategy.Pmd,
            config: [
              names: :same,
              polling_interval: 10_000,
              disconnect_after: :never,
              max_nodes: 1024
            ]
          ]
        ]

  All of `config` may be left out; above are the defaults.

    * `names` - which nodes are connected: `:same` are those of this node's own name on other hosts (`myapp@web1`,
      `myapp@web2`), `:all` every one, a list or a regular expression the names before the `@`.
    * `polling_interval` - how often, in milliseconds, nodes that could not be connected are tried again, and what is
      registered is read anew, with or without events.
    * `disconnect_after` - after how many milliseconds a node that is not registered any more is disconnected. With
      `:never`, it is left to the nodes themselves to see whether the other still lives: a daemon that is
      stopped for an upgrade takes its names with it for that time, and not the nodes.
    * `max_nodes` - how many different node names are made atoms of, at most, in the life of the strategy.

  Hidden nodes, C nodes and nodes in Java are never connected. The part after the `@` follows this node's own: with
  short names the short name of the other host, with long names its full name, with an address its address.

  The daemon is found by the environment variables `PMD_SOCKET`, `PMD_HOME` and `ERL_EPMD_PORT`, as the `pmd` command
  finds it. One that is not there is waited for.
  """

  use GenServer
  use Cluster.Strategy

  require Logger

  alias Cluster.Strategy.Pmd.NodeNames
  alias Cluster.Strategy.State

  @defaults [names: :same, polling_interval: 10_000, disconnect_after: :never, max_nodes: 1024, client: :pmd]

  # Events that come together are answered together.
  @gather 50

  # What can change which nodes there are. `connected` and `gap` mean that anything can have changed.
  @relevant [:connected, :gap, :name_up, :name_down, :node_up, :node_down, :node_left]

  @impl Cluster.Strategy
  def start_link([%State{} = state]), do: GenServer.start_link(__MODULE__, state)

  @impl GenServer
  def init(%State{} = state) do
    config = Keyword.merge(@defaults, state.config || [])
    meta = %{config: config, timer: nil, known: %{}, missing: %{}, trouble: nil}
    {:ok, %State{state | meta: meta}, {:continue, :subscribe}}
  end

  @impl GenServer
  def handle_continue(:subscribe, state) do
    case client(state).subscribe([:name_up, :name_down, :node_up, :node_down, :node_left]) do
      {:ok, _subscription} -> {:noreply, sync(state)}
      # Without events there is still the polling.
      {:error, reason} -> {:noreply, state |> trouble(reason) |> sync()}
    end
  end

  @impl GenServer
  def handle_info({:pmd_event, _subscription, %{event: event}}, state) when event in @relevant do
    {:noreply, schedule(state, @gather)}
  end

  def handle_info({:timeout, timer, :sync}, %State{meta: %{timer: timer}} = state) do
    {:noreply, sync(state)}
  end

  def handle_info(_message, state), do: {:noreply, state}

  # ---- what is to be connected

  defp sync(state) do
    state =
      case Node.alive?() && wanted(state) do
        false -> trouble(state, "this node has no name, so that it cannot connect to others")
        {:ok, names} -> state |> trouble(nil) |> apply_names(names)
        {:error, reason} -> trouble(state, reason)
      end

    schedule(state, config(state, :polling_interval))
  end

  defp wanted(state) do
    client = client(state)

    with {:ok, registered} <- client.names(),
         {:ok, members} <- if(NodeNames.addresses?(Node.self()), do: client.nodes(), else: {:ok, []}) do
      {:ok, NodeNames.wanted(registered, members, Node.self(), config(state, :names))}
    end
  end

  defp apply_names(state, names) do
    {nodes, state} = Enum.flat_map_reduce(names, state, &to_node/2)
    nodes = List.delete(nodes, Node.self())
    _ = Cluster.Strategy.connect_nodes(state.topology, state.connect, state.list_nodes, nodes)
    drop_missing(state, nodes)
  end

  # Names come from other hosts, and atoms are never freed: hence a limit.
  defp to_node(name, %State{meta: %{known: known} = meta} = state) do
    limit = config(state, :max_nodes)

    case known do
      %{^name => node} ->
        {[node], state}

      _ when map_size(known) < limit ->
        node = String.to_atom(name)
        {[node], %State{state | meta: %{meta | known: Map.put(known, name, node)}}}

      _ ->
        Logger.warning(said(state, "not connecting to #{inspect(name)}: more than max_nodes names of nodes"))
        {[], state}
    end
  end

  defp drop_missing(%State{meta: %{known: known, missing: missing} = meta} = state, nodes) do
    case meta.config[:disconnect_after] do
      :never ->
        state

      patience ->
        now = System.monotonic_time(:millisecond)
        gone = Map.values(known) -- [Node.self() | nodes]
        missing = Map.new(gone, fn node -> {node, Map.get(missing, node, now)} end)
        over = for {node, since} <- missing, now - since >= patience, do: node
        _ = Cluster.Strategy.disconnect_nodes(state.topology, state.disconnect, state.list_nodes, over)
        %State{state | meta: %{meta | missing: missing}}
    end
  end

  # ---- helpers

  # The sooner of what is scheduled and this, so that a stream of events does not put it off for ever.
  defp schedule(%State{meta: %{timer: timer} = meta} = state, delay) do
    case timer && Process.read_timer(timer) do
      left when is_integer(left) and left <= delay ->
        state

      _ ->
        timer && Process.cancel_timer(timer)
        %State{state | meta: %{meta | timer: :erlang.start_timer(delay, self(), :sync)}}
    end
  end

  # Said when it begins, and when it is over; not at every attempt.
  defp trouble(%State{meta: %{trouble: same}} = state, same), do: state

  defp trouble(%State{meta: meta} = state, trouble) do
    case trouble do
      nil -> Logger.info(said(state, "pmd answers again"))
      text when is_binary(text) -> Logger.warning(said(state, text))
      reason -> Logger.warning(said(state, "cannot ask pmd: #{client(state).format_error(reason)}"))
    end

    %State{state | meta: %{meta | trouble: trouble}}
  end

  defp said(state, text), do: "[libcluster:#{state.topology}] #{text}"

  defp client(state), do: config(state, :client)

  defp config(%State{meta: %{config: config}}, key), do: Keyword.fetch!(config, key)
end
