defmodule Cluster.Strategy.Pmd.NodeNames do
  @moduledoc false
  # Derives full node names from registry entries.
  #
  # The registry knows a node as `myapp` on the host `web1`. Its full name was its own choice: `myapp@web1`,
  # `myapp@web1.example.org` or `myapp@10.0.0.7`. Nodes can only connect if they made the same choice, so the name of
  # this node tells which one it was.

  # 77 in the EPMD protocol. Hidden nodes, C nodes and tools are not connected automatically.
  @normal_node 77

  # The characters of a node name. Any other name does not belong to a node that one could connect to.
  @part ~r/\A[A-Za-z0-9_.:-]{1,255}\z/

  @type names :: :same | :all | [String.t()] | Regex.t()

  @doc "The full names of the registered nodes to connect, as strings: the caller decides which become atoms."
  @spec wanted([:pmd.name()], [:pmd.member()], node, names) :: [String.t()]
  def wanted(registered, members, own, names) do
    [own_name, own_host] = own |> Atom.to_string() |> String.split("@", parts: 2)

    for %{name: name, node_type: @normal_node} = entry <- registered,
        wanted?(name, own_name, names),
        name =~ @part,
        host = host(entry, members, own_host),
        host =~ @part,
        uniq: true,
        do: name <> "@" <> host
  end

  @doc "Whether the members' addresses are needed."
  @spec addresses?(node) :: boolean
  def addresses?(own) do
    own |> Atom.to_string() |> String.split("@", parts: 2) |> List.last() |> address?()
  end

  defp wanted?(name, own, :same), do: name == own
  defp wanted?(_name, _own, :all), do: true
  defp wanted?(name, _own, names) when is_list(names), do: name in names
  defp wanted?(name, _own, %Regex{} = names), do: name =~ names

  defp host(%{host: host} = entry, members, own_host) do
    cond do
      address?(own_host) -> address(entry, members)
      not String.contains?(own_host, ".") -> host |> String.split(".") |> hd()
      String.contains?(host, ".") -> host
      # The daemon there does not know its domain. Hosts of one cluster usually share it.
      true -> host <> "." <> domain(own_host)
    end
  end

  defp host(_entry, _members, _own_host), do: nil

  defp domain(host), do: host |> String.split(".", parts: 2) |> List.last()

  defp address(%{node_id: id}, members) do
    Enum.find_value(members, fn
      %{id: ^id, addresses: [{address, _port} | _]} -> address |> :inet.ntoa() |> List.to_string()
      _ -> nil
    end)
  end

  defp address(_entry, _members), do: nil

  defp address?(host), do: match?({:ok, _}, host |> String.to_charlist() |> :inet.parse_strict_address())
end
