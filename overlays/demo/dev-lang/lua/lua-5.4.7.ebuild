# Distributed under the terms of the MIT license

EAPI=8

inherit demo-cc

DESCRIPTION="A small language to embed"
HOMEPAGE="https://www.lua.org/"
SRC_URI="https://www.lua.org/ftp/${P}.tar.gz"

LICENSE="MIT"
SLOT="0/5.4"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="+readline"

DEPEND="readline? ( sys-libs/readline:= )"
RDEPEND="${DEPEND}"

src_compile() {
	demo-cc_export
	emake -C src CC="${CC} -std=gnu99" AR="${AR} rc" RANLIB="${RANLIB}" LDFLAGS="${LDFLAGS}" \
		CFLAGS="${CPPFLAGS} ${CFLAGS} -DLUA_COMPAT_5_3 -DLUA_USE_LINUX $(usev readline -DLUA_USE_READLINE)" \
		SYSLIBS="-Wl,-E -ldl $(usev readline -lreadline)" all
}

src_test() {
	[[ $(src/lua -e 'print(string.rep("a", 3), 7 // 2, math.type(1))') == $'aaa\t3\tinteger' ]] || die "lua is wrong"
	printf 'return 6 * 7\n' | src/luac -o six.luac - || die
	[[ $(src/lua -e 'print(dofile("six.luac"))') == 42 ]] || die "lua does not run what luac made"
}

src_install() {
	local prefix="${ED}/usr"
	emake INSTALL_TOP="${prefix}" INSTALL_LIB="${prefix}/$(get_libdir)" \
		INSTALL_MAN="${prefix}/share/man/man1" install
	# Empty, and keeping empty directories is not what they are for.
	rmdir -p --ignore-fail-on-non-empty "${prefix}"/{lib,share}/lua/5.4 || die
	einstalldocs
}
