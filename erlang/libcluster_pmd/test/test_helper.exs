# Works under `mix test`, and without libcluster and mix, as the README describes.
unless Code.ensure_loaded?(Cluster.Strategy) do
  Code.require_file("support/libcluster_stub.ex", __DIR__)

  for file <- ["pmd/node_names.ex", "pmd.ex"] do
    Code.require_file("../lib/cluster/strategy/" <> file, __DIR__)
  end
end

# The tests in live_test.exs need daemons and nodes.
ExUnit.start(exclude: if(System.get_env("PMD_TEST_LIVE"), do: [], else: [:live]))
