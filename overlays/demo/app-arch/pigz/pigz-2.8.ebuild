# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="Parallel gzip"
HOMEPAGE="https://zlib.net/pigz/"
# Upstream's files in another archive.
SRC_URI="${P}-debian.tar.xz"

LICENSE="ZLIB Apache-2.0"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

DEPEND="sys-libs/zlib:="
RDEPEND="${DEPEND}"

pigz_emake() {
	demo-cc_export
	emake CC="${CC}" CFLAGS="${CPPFLAGS} ${CFLAGS}" LDFLAGS="${LDFLAGS}" "$@"
}

src_compile() {
	pigz_emake pigz
}

src_test() {
	pigz_emake test
}

src_install() {
	dobin pigz
	dosym pigz /usr/bin/unpigz
	doman pigz.1
	einstalldocs
}
