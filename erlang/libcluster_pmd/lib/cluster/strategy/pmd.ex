defmodule Cluster.Strategy.Pmd do
  @moduledoc """
  Connects the nodes that are registered with pmd, on any host.

  Every node registers with the port mapper of its host as always, and the pmd daemons of a cluster share what is
  registered. This strategy reads it from the daemon of its own host and follows that daemon's events, so a node is
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

  `config` may be left out; the values above are the defaults.

    * `names` - which nodes are connected: `:same` for nodes of this node's own name on other hosts (`myapp@web1`,
      `myapp@web2`), `:all` for all nodes, or a list or regular expression for the part before the `@`.
    * `polling_interval` - how often, in milliseconds, to retry nodes that could not be connected and to read the
      registry again, with or without events.
    * `disconnect_after` - after how many milliseconds a node that is no longer registered is disconnected. With
      `:never`, nodes find out for themselves whether another is still alive: a daemon that is stopped for an upgrade
      takes its names out of the registry for that time, but its nodes keep running.
    * `max_nodes` - how many different node names may become atoms while the strategy runs.

  Hidden nodes, C nodes and Java nodes are never connected. The part after the `@` has the form of this node's own: with
  short names the short name of the other host, with long names its full name, with an address its address.

  The daemon is found through the environment variables `PMD_SOCKET`, `PMD_HOME` and `ERL_EPMD_PORT`, in the same way
  as by the `pmd` command. If it is not running yet, the strategy waits for it.
  """

  use GenServer
  use Cluster.Strategy

  require Logger

  alias Cluster.Strategy.Pmd.NodeNames
  alias Cluster.Strategy.State

  @defaults [names: :same, polling_interval: 10_000, disconnect_after: :never, max_nodes: 1024, client: :pmd]

  # Milliseconds in which further events are gathered before the registry is read.
  @gather 50

  # Events that can change the set of nodes. After `connected` and `gap`, anything may have changed.
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
      # Polling continues without events.
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

  # ---- connecting

  defp sync(state) do
    state =
      case Node.alive?() && wanted(state) do
        false -> trouble(state, "this node has no name, so it cannot connect to others")
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

  # Names come from other hosts and atoms are never freed, hence the limit.
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

  # Keeps the earlier deadline, so that a stream of events does not postpone it forever.
  defp schedule(%State{meta: %{timer: timer} = meta} = state, delay) do
    case timer && Process.read_timer(timer) do
      left when is_integer(left) and left <= delay ->
        state

      _ ->
        timer && Process.cancel_timer(timer)
        %State{state | meta: %{meta | timer: :erlang.start_timer(delay, self(), :sync)}}
    end
  end

  # Logged when trouble begins and when it is over, not at every attempt.
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
