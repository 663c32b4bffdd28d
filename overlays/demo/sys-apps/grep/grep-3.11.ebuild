# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="The GNU program that finds lines by a pattern"
HOMEPAGE="https://www.gnu.org/software/grep/"
SRC_URI="mirror://gnu/grep/${P}.tar.xz"

LICENSE="GPL-3+"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="+pcre"

DEPEND="pcre? ( dev-libs/libpcre2:= )"
RDEPEND="${DEPEND}"
BDEPEND="pcre? ( dev-util/pkgconf )"

src_configure() {
	econf --disable-nls $(use_enable pcre perl-regexp)
}
