# Distributed under the terms of the MIT license

EAPI=8

DESCRIPTION="Library that draws on text terminals"
HOMEPAGE="https://invisible-island.net/ncurses/"
SRC_URI="mirror://gnu/ncurses/${P}.tar.gz"

LICENSE="MIT"
SLOT="0/6"
KEYWORDS="amd64 arm arm64 ppc ppc64 riscv"
IUSE="terminfo"
RESTRICT="test"

BDEPEND="dev-util/pkgconf"

src_configure() {
	# The same library names and symbol versions as Debian's, whose bash and perl
	# run with whichever libtinfo.so.6 is in the library directory.
	local options=(
		--enable-pc-files
		--enable-widec
		--with-manpage-format=normal
		--with-pkg-config-libdir="${EPREFIX}/usr/$(get_libdir)/pkgconfig"
		--with-shared
		--with-termlib=tinfo
		--with-terminfo-dirs="${EPREFIX}/etc/terminfo:${EPREFIX}/lib/terminfo:${EPREFIX}/usr/share/terminfo"
		--with-versioned-syms
		--without-ada
		--without-cxx-binding
		--without-debug
		--without-normal
		--without-tests
		--disable-rpath-hack
		--disable-stripping
		# The stage has the usual terminals; compiling all of them takes tic a while.
		$(use_enable terminfo db-install)
	)
	econf "${options[@]}"
}

src_install() {
	emake DESTDIR="${D}" install
	local lib
	for lib in form menu ncurses panel; do
		# What asks for the narrow library gets the wide one, which can do both.
		newlib.so - "lib${lib}.so" <<< "INPUT(-l${lib}w)"
	done
	newlib.so - libcurses.so <<< "INPUT(-lncursesw)"
	dodoc ANNOUNCE NEWS README
}
