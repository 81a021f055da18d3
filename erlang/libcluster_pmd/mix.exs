defmodule LibclusterPmd.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :libcluster_pmd,
      version: @version,
      elixir: "~> 1.12",
      start_permanent: Mix.env() == :prod,
      description: "libcluster strategy for pmd: nodes find each other through one registry for all hosts",
      package: package(),
      deps: deps()
    ]
  end

  def application do
    [extra_applications: [:logger]]
  end

  defp deps do
    [{:libcluster, "~> 3.3"}, pmd()]
  end

  # In a checkout of pmd: PMD_CLIENT_PATH=../pmd mix test
  defp pmd do
    case System.get_env("PMD_CLIENT_PATH") do
      nil -> {:pmd, "~> 0.1"}
      path -> {:pmd, path: path}
    end
  end

  defp package do
    [
      licenses: ["MIT", "Apache-2.0"],
      links: %{},
      files: ~w(lib mix.exs README.md LICENSE-APACHE LICENSE-MIT)
    ]
  end
end
