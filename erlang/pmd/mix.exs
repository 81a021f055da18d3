# So that mix builds the client without rebar3. pmd.app.src and rebar.config say the same to rebar3.
defmodule Pmd.MixProject do
  use Mix.Project

  def project do
    [
      app: :pmd,
      version: "0.1.0",
      language: :erlang,
      description: "Client for pmd: one registry for all hosts of an Erlang cluster, and an epmd module",
      package: [
        licenses: ["MIT", "Apache-2.0"],
        links: %{},
        files: ~w(src mix.exs rebar.config README.md LICENSE-APACHE LICENSE-MIT)
      ]
    ]
  end

  # No processes of its own, and no application but the runtime's.
  def application, do: []
end
