"""TAPs, links, addresses, routes and namespaces; the only room that speaks netlink."""
