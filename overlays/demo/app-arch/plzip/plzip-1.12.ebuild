# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="Parallel compressor of the lzip format"
HOMEPAGE="https://www.nongnu.org/lzip/plzip.html"
# Upstream's files in another archive: upstream offers .tar.gz and .tar.lz.
SRC_URI="${P}-debian.tar.xz"

LICENSE="GPL-2+"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

DEPEND="app-arch/lzlib:="
RDEPEND="${DEPEND}"

src_configure() {
	# Not autoconf: it takes the compiler and its flags as arguments only.
	demo-cc_export
	./configure --prefix="${EPREFIX}"/usr CXX="${CXX}" \
		CPPFLAGS="${CPPFLAGS}" CXXFLAGS="${CXXFLAGS}" LDFLAGS="${LDFLAGS}" || die
}
