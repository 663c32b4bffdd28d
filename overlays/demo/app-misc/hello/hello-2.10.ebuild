# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="The GNU program that says hello: a whole autoconf build around one file"
HOMEPAGE="https://www.gnu.org/software/hello/"
SRC_URI="mirror://gnu/hello/${P}.tar.gz"

LICENSE="GPL-3+"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"

src_configure() {
	econf --disable-nls
}
