# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="Very fast compressor and its library"
HOMEPAGE="https://lz4.org/"
SRC_URI="https://github.com/lz4/lz4/archive/v${PV}.tar.gz -> ${P}.tar.gz"

LICENSE="BSD-2 GPL-2+"
SLOT="0/1"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

src_compile() {
	demo-cc_export
	# Upstream compiles and links the library in one command, which distcc cannot
	# send away, and the same files again for the program: compile them once.
	local objects=( lz4.o lz4file.o lz4frame.o lz4hc.o xxhash.o )
	CFLAGS="${CFLAGS} -fPIC -fvisibility=hidden" emake -C lib "${objects[@]}"
	emake -C lib SRCFILES="${objects[*]}" liblz4
	emake -C programs lz4
}

src_test() {
	cp lib/lz4.c input || die
	programs/lz4 -9 input output.lz4 || die
	programs/lz4 -dc output.lz4 | cmp - input || die "lz4 does not give back what it took"
}

src_install() {
	local dirs=( prefix="${EPREFIX}"/usr libdir="${EPREFIX}/usr/$(get_libdir)" )
	emake -C lib "${dirs[@]}" BUILD_STATIC=no DESTDIR="${D}" install
	emake -C programs "${dirs[@]}" DESTDIR="${D}" install
	einstalldocs
}
