"""fwd: the path Cilium walks in the kernel, done by one userspace daemon a host."""
