# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="Compressor of the lzip format, with integrity checking"
HOMEPAGE="https://www.nongnu.org/lzip/lzip.html"
# Upstream's files in another archive: upstream offers .tar.gz and .tar.lz.
SRC_URI="${P}-debian.tar.xz"

LICENSE="GPL-2+"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

src_configure() {
	# Not autoconf: it takes the compiler and its flags as arguments only.
	demo-cc_export
	./configure --prefix="${EPREFIX}"/usr CXX="${CXX}" \
		CPPFLAGS="${CPPFLAGS}" CXXFLAGS="${CXXFLAGS}" LDFLAGS="${LDFLAGS}" || die
}
