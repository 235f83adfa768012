"""Kubernetes YAML to values: Pod, Service, EndpointSlice, Namespace and network policies."""
