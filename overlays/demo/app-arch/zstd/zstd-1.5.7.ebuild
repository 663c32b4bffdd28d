# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="Fast compressor with high ratios, and its library"
HOMEPAGE="https://facebook.github.io/zstd/"
# Debian's repack, without files that are of no use to a build.
SRC_URI="${P}-debian.tar.xz"

LICENSE="BSD GPL-2"
SLOT="0/1"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="+lz4 lzma +zlib"
RESTRICT="test"

DEPEND="
	lz4? ( app-arch/lz4:= )
	lzma? ( app-arch/xz-utils:= )
	zlib? ( sys-libs/zlib:= )
"
RDEPEND="${DEPEND}"

zstd_emake() {
	demo-cc_export
	emake CC="${CC}" AR="${AR}" PREFIX="${EPREFIX}"/usr LIBDIR="${EPREFIX}/usr/$(get_libdir)" \
		HAVE_LZ4=$(usex lz4 1 0) HAVE_LZMA=$(usex lzma 1 0) HAVE_ZLIB=$(usex zlib 1 0) V=1 "$@"
}

src_compile() {
	zstd_emake -C lib libzstd libzstd.pc
	# zstd-dll is the program linked against the library just made.
	zstd_emake -C programs zstd-dll
}

src_install() {
	zstd_emake -C lib DESTDIR="${D}" install-shared install-includes install-pc
	dobin programs/zstd programs/zstdgrep programs/zstdless
	dosym zstd /usr/bin/unzstd
	dosym zstd /usr/bin/zstdcat
	dosym zstd /usr/bin/zstdmt
	doman programs/zstd.1 programs/zstdgrep.1 programs/zstdless.1
	einstalldocs
}
