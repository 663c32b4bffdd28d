# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="Makes PNG files smaller"
HOMEPAGE="https://pmt.sourceforge.io/pngcrush/"
SRC_URI="mirror://sourceforge/pmt/${P}-nolib.tar.xz"
S="${WORKDIR}/${P}-nolib"

LICENSE="pngcrush"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

DEPEND="
	media-libs/libpng:=
	sys-libs/zlib:=
"
RDEPEND="${DEPEND}"

PATCHES=( "${FILESDIR}/${P}-adler32.patch" )
HTML_DOCS=( ChangeLog.html )

src_compile() {
	demo-cc_export
	emake CC="${CC}" LD="${CC}" CFLAGS="${CFLAGS}" CPPFLAGS="${CPPFLAGS}" \
		LDFLAGS="${LDFLAGS}" LIBS="-lpng -lz -lm"
}

src_test() {
	# One white pixel and a comment, which is thrown away.
	local png=iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAADXRFWHRDb21tZW50AHdoaXRlkiDFBgAA
	png+=AApJREFUeNpj+A8AAQEBABywjJkAAAAASUVORK5CYII=
	base64 -d > in.png <<< "${png}" || die
	./pngcrush -rem alla in.png out.png || die
	[[ -s out.png && $(wc -c < out.png) -lt $(wc -c < in.png) ]] || die "pngcrush made nothing smaller"
}

src_install() {
	dobin pngcrush
	einstalldocs
}
