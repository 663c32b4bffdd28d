"""portage-cluster: build a Gentoo-like distribution for another architecture, one package per QEMU node."""
