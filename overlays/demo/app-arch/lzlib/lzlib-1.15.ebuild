# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="Compression library of the lzip format"
HOMEPAGE="https://www.nongnu.org/lzip/lzlib.html"
# Upstream's files in another archive: upstream offers .tar.gz and .tar.lz.
SRC_URI="${P}-debian.tar.xz"

LICENSE="BSD-2"
SLOT="0/1"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

src_configure() {
	# Not autoconf: it takes the compiler and its flags as arguments only.
	demo-cc_export
	./configure --prefix="${EPREFIX}"/usr --libdir="${EPREFIX}/usr/$(get_libdir)" \
		--disable-static --disable-ldconfig CC="${CC}" AR="${AR}" \
		CPPFLAGS="${CPPFLAGS}" CFLAGS="${CFLAGS}" LDFLAGS="${LDFLAGS}" || die
}
