# Distributed under the terms of the MIT license

EAPI=8

MY_P="xz-${PV}"
DESCRIPTION="Compressor of the xz and lzma formats, and its library"
HOMEPAGE="https://tukaani.org/xz/"
SRC_URI="https://github.com/tukaani-project/xz/releases/download/v${PV}/${MY_P}.tar.xz"
S="${WORKDIR}/${MY_P}"

LICENSE="0BSD LGPL-2.1+ GPL-2+"
SLOT="0/5"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

src_configure() {
	econf --disable-nls --disable-doc --disable-lzmadec --disable-lzmainfo
}

src_install() {
	default
	find "${ED}" -name '*.la' -delete || die
}
