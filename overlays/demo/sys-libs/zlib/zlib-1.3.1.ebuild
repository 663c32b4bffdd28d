# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="Compression library of the deflate format (gzip, zip, PNG)"
HOMEPAGE="https://zlib.net/"
# Upstream's release without the files whose licence Debian cannot ship: other
# bytes under another name, so no upstream address carries it.
SRC_URI="${P}-debian.tar.gz"

LICENSE="ZLIB"
SLOT="0/1"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

src_configure() {
	# Not autoconf: it knows few options, and takes the compiler from CC or CHOST.
	demo-cc_export
	./configure --prefix="${EPREFIX}"/usr --libdir="${EPREFIX}/usr/$(get_libdir)" --shared || die
}

src_compile() {
	# The shared library waits for the static one, which nobody uses: make that of
	# the same objects instead of compiling everything twice.
	emake OBJS='$(PIC_OBJS)' "libz.so.${PV}"
}

src_install() {
	# "make install" would install the static library too.
	dolib.so libz.so*
	doheader zlib.h zconf.h
	insinto "/usr/$(get_libdir)/pkgconfig"
	doins zlib.pc
	doman zlib.3
	einstalldocs
}
