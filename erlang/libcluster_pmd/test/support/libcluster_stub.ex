# A stand-in for libcluster where it is not available: the part of its public interface that a strategy uses.
# `Cluster.Strategy` follows the documentation of libcluster 3.3: connect_nodes/4 and disconnect_nodes/4 take the functions
# the topology is configured with, leave out the node itself, and return which nodes failed.

defmodule Cluster.Strategy do
  @callback child_spec([Cluster.Strategy.State.t()]) :: Supervisor.child_spec()
  @callback start_link([Cluster.Strategy.State.t()]) :: {:ok, pid} | :ignore | {:error, term}

  defmacro __using__(_options) do
    quote do
      @behaviour Cluster.Strategy

      @impl true
      def child_spec(arguments) do
        %{id: __MODULE__, type: :worker, start: {__MODULE__, :start_link, [arguments]}}
      end

      defoverridable child_spec: 1
    end
  end

  def connect_nodes(_topology, connect, {module, function, arguments}, nodes) when is_list(nodes) do
    each(connect, (nodes -- apply(module, function, arguments)) -- [Node.self()])
  end

  def disconnect_nodes(_topology, disconnect, {module, function, arguments}, nodes) when is_list(nodes) do
    connected = apply(module, function, arguments)
    each(disconnect, Enum.filter(nodes, &(&1 in connected)))
  end

  defp each({module, function, arguments}, nodes) do
    failed =
      for node <- nodes,
          result = apply(module, function, arguments ++ [node]),
          result != true,
          do: {node, result}

    if failed == [], do: :ok, else: {:error, failed}
  end
end

defmodule Cluster.Strategy.State do
  @type t :: %__MODULE__{}
  defstruct [:topology, :connect, :disconnect, :list_nodes, meta: nil, config: []]
end
