# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="Built once in a node before it is saved, so that what builds use is in its memory"
HOMEPAGE="https://example.org/portage-cluster"
S="${WORKDIR}"

LICENSE="MIT"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

src_unpack() {
	cp "${FILESDIR}"/* "${S}" || die
	tar -cf - . | gzip -c | tar -tzf - > /dev/null || die
	tar -cf - . | xz -0c | tar -tJf - > /dev/null || die
	tar -cf - . | bzip2 -c | tar -tjf - > /dev/null || die
}

src_configure() {
	sh ./configure || die
}

src_compile() {
	emake CC=gcc CXX=g++
}

src_install() {
	dobin rehearsal
	dolib.a librehearsal.a
	insinto /usr/include
	doins rehearsal.h
	newman rehearsal.h rehearsal.1
	dodoc rehearsal.h
}
