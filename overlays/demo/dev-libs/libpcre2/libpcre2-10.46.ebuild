# Distributed under the terms of the MIT license

EAPI=8

MY_P="pcre2-${PV}"
DESCRIPTION="Library of regular expressions with Perl's syntax"
HOMEPAGE="https://www.pcre.org/"
SRC_URI="https://github.com/PCRE2Project/pcre2/releases/download/${MY_P}/${MY_P}.tar.gz"
S="${WORKDIR}/${MY_P}"

LICENSE="BSD"
SLOT="0/0"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="bzip2 jit +readline +zlib"

DEPEND="
	bzip2? ( app-arch/bzip2:= )
	readline? ( sys-libs/readline:= )
	zlib? ( sys-libs/zlib:= )
"
RDEPEND="${DEPEND}"

# What another compiler than gcc has.
QA_CONFIG_IMPL_DECL_SKIP=( __assume )

src_configure() {
	econf \
		$(use_enable bzip2 pcre2grep-libbz2) \
		$(use_enable jit) \
		$(use_enable readline pcre2test-libreadline) \
		$(use_enable zlib pcre2grep-libz)
}

src_install() {
	default
	find "${ED}" -name '*.la' -delete || die
}
