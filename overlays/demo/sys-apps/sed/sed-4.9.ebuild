# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="The GNU stream editor"
HOMEPAGE="https://www.gnu.org/software/sed/"
SRC_URI="mirror://gnu/sed/${P}.tar.xz"

LICENSE="GPL-3+"
SLOT="0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
# One of its tests (panic-tests.sh) cannot pass as root, and nodes build as root.
RESTRICT="test"

# Autoconf's test for C11 calls free() without declaring it.
QA_CONFIG_IMPL_DECL_SKIP=( free )

src_configure() {
	econf --disable-acl --disable-nls --without-selinux
}
