# Packages the accelerator as a Vitis RTL kernel (.xo). NOT RUN HERE: no vendor tools were at hand.
#   vivado -mode batch -source fpga/syn/package.tcl -tclargs FOLDER PART XO [NAME=VALUE ...]
# FOLDER holds ragrig_scan.sv and kernel.xml of `python -m scripts.make_kernel CHANNELS FOLDER`;
# NAME=VALUE sets parameters of ragrig_scan, for example M=32 KMAX=100.
if {[llength $argv] < 3} { error "usage: -tclargs FOLDER PART XO \[NAME=VALUE ...\]" }
lassign $argv folder part xo
set rtl [file normalize [file join [file dirname [info script]] .. rtl]]
set project [file join $folder project]
set package [file join $folder ip]

create_project -force ragrig $project -part $part
add_files -norecurse [file join $rtl ragrig_regs_pkg.sv]
foreach file [lsort [glob [file join $rtl *.sv]]] {
  if {[file tail $file] ni {ragrig_regs_pkg.sv ragrig_scan.sv}} { add_files -norecurse $file }
}
add_files -norecurse [file join $folder ragrig_scan.sv]
set_property top ragrig_scan [current_fileset]
set_property generic [lrange $argv 3 end] [current_fileset]
update_compile_order -fileset sources_1

ipx::package_project -root_dir $package -vendor ragrig -library kernel -taxonomy /KernelIP \
    -import_files -set_current false
ipx::unload_core [file join $package component.xml]
ipx::edit_ip_in_project -upgrade true -name edit -directory $project [file join $package component.xml]
set core [ipx::current_core]
foreach {name value} [join [lmap one [lrange $argv 3 end] {split $one =}]] {
  set parameter [ipx::get_user_parameters $name -of_objects $core]
  set_property value $value $parameter
  set_property value $value [ipx::get_hdl_parameters $name -of_objects $core]
}
set_property core_revision 1 $core
set_property sdx_kernel true $core
set_property sdx_kernel_type rtl $core
set_property vitis_drc {ctrl_protocol ap_ctrl_hs} $core
set_property ipi_drc {ignore_freq_hz true} $core
foreach bus [ipx::get_bus_interfaces -of_objects $core -filter {NAME =~ "*axi*"}] {
  ipx::associate_bus_interfaces -busif [get_property NAME $bus] -clock ap_clk $core
}
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity -kernel -xrt $core
ipx::save_core $core
close_project -delete

package_xo -force -xo_path $xo -kernel_name ragrig_scan -ip_directory $package \
    -kernel_xml [file join $folder kernel.xml]
