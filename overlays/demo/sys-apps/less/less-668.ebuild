# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="Shows a text page by page"
HOMEPAGE="https://www.greenwoodsoftware.com/less/"
SRC_URI="https://www.greenwoodsoftware.com/less/${P}.tar.gz"

LICENSE="|| ( GPL-3 BSD-2 )"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="+pcre"
RESTRICT="test"

DEPEND="
	sys-libs/ncurses:=
	pcre? ( dev-libs/libpcre2:= )
"
RDEPEND="${DEPEND}"

src_configure() {
	econf --with-regex=$(usex pcre pcre2 posix)
}
