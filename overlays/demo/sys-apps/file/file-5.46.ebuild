# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="Tells what a file is, and the library that does"
HOMEPAGE="https://darwinsys.com/file/"
SRC_URI="https://astron.com/pub/file/${P}.tar.gz"

LICENSE="BSD-2"
SLOT="0/1"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="+bzip2 +lzip +lzma +zlib +zstd"

DEPEND="
	bzip2? ( app-arch/bzip2:= )
	lzip? ( app-arch/lzlib:= )
	lzma? ( app-arch/xz-utils:= )
	zlib? ( sys-libs/zlib:= )
	zstd? ( app-arch/zstd:= )
"
RDEPEND="${DEPEND}"

src_configure() {
	econf \
		$(use_enable bzip2 bzlib) \
		$(use_enable lzip lzlib) \
		$(use_enable lzma xzlib) \
		$(use_enable zlib) \
		$(use_enable zstd zstdlib) \
		--disable-libseccomp \
		--disable-lrziplib
}

src_install() {
	default
	find "${ED}" -name '*.la' -delete || die
}
