# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="Block-sorting compressor and its library"
HOMEPAGE="https://sourceware.org/bzip2/"
SRC_URI="https://sourceware.org/pub/bzip2/${P}.tar.gz"

LICENSE="BZIP2"
SLOT="0/1"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

DOCS=( CHANGES README )

bzip2_emake() {
	demo-cc_export
	LD_LIBRARY_PATH=${S} emake CC="${CC}" AR="${AR}" RANLIB="${RANLIB}" LDFLAGS="${LDFLAGS}" \
		CFLAGS="${CFLAGS} -fPIC -D_FILE_OFFSET_BITS=64" "$@"
}

src_compile() {
	# Upstream's makefiles compile everything twice for a static program and a
	# shared library; here the one set of objects becomes the library.
	bzip2_emake libbz2.a
	${CC} ${CFLAGS} ${LDFLAGS} -shared -Wl,-soname,libbz2.so.1.0 -o "libbz2.so.${PV}" *.o || die
	ln -s "libbz2.so.${PV}" libbz2.so.1.0 || die
	ln -s libbz2.so.1.0 libbz2.so || die
	bzip2_emake bzip2 bzip2recover
}

src_test() {
	bzip2_emake test
}

src_install() {
	dobin bzip2 bzip2recover bzdiff bzgrep bzmore
	dosym bzip2 /usr/bin/bunzip2
	dosym bzip2 /usr/bin/bzcat
	dosym bzdiff /usr/bin/bzcmp
	dosym bzgrep /usr/bin/bzegrep
	dosym bzgrep /usr/bin/bzfgrep
	dosym bzmore /usr/bin/bzless
	dolib.so libbz2.so*
	doheader bzlib.h
	doman *.1
	einstalldocs
}
